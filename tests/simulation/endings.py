"""Why a task, a step or a workflow may go on or end as it does: nothing happens for no reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.simulation.server import Stored
from tests.simulation.tables import UNDECIDED, CheckedTask, Tables
from tests.simulation.views import FlowView, NotThere
from tests.simulation.world import Violation

__all__ = ["Endings"]

_UNSTARTED_LIMIT = 20
_CRON_MS = 60_000


class Endings:
    """Judges `settled`, `retrying`, `fired`, `skipped`, `expanded` and `entered`.

    seen: counts what has ended how.
    """

    def __init__(self, tables: Tables, seen: Counter[str], *, lost_limit: int) -> None:
        self._tables = tables
        self._seen = seen
        self._lost_limit = lost_limit

    # -- tasks

    def retrying(self, record: Stored, event: dict[str, Any]) -> None:
        """Only an error that may be retried, and within the time that the policy allows."""
        task = self._waiting(event)
        retry, failure = task.terms.get("retry", {}), task.failure
        if failure is None or event["attempt"] != task.attempt:
            raise Violation("retry", f"{event} without an error")
        if not self._may_retry(task):
            raise Violation("retry", f"{event}: {task.errors} errors before, {retry}, {failure}")
        delay = retry.get("delay", 1.0) * retry.get("factor", 2.0) ** task.errors
        most = max(min(delay, retry.get("max_delay", 300.0)), failure.get("retry_after") or 0)
        if event["at"] > record.at_ms + 1000 * most + 2:
            raise Violation("retry", f"{event} at {record.at_ms}: waits longer than {most} s")
        if event["at"] < task.failed_at + 1000 * (failure.get("retry_after") or 0) - 2:
            raise Violation("retry", f"{event} earlier than {failure} at {task.failed_at} allows")
        task.failure = None
        task.errors += 1
        task.not_before = event["at"]

    def _may_retry(self, task: CheckedTask) -> bool:
        retry, failure = task.terms.get("retry", {}), task.failure or {}
        hopeless = failure.get("final") or failure["type"] in ("BadInput", *retry.get("not_on", ()))
        return not hopeless and task.errors + 1 < retry.get("attempts", 1)

    def _waiting(self, event: dict[str, Any]) -> CheckedTask:
        task = self._tables.tasks.get(event["task"])
        if task is None or task.state != "waiting":
            raise Violation("I1", f"{event} of what is {task and task.state}")
        return task

    def settled(self, record: Stored, event: dict[str, Any]) -> None:
        """A terminal event, of whatever it may be."""
        name = event["task"]
        if name in self._tables.flows:
            self._settle_flow(self._tables.flows[name], event)
            return
        schedule = self._tables.schedules.pop(name, None)
        if schedule is not None:
            if not schedule.cancel or event["state"] != "cancelled":
                raise Violation("I1", f"{event} ends a schedule that was not cancelled")
            self._tables.ends[name] += 1
            return
        task = self._waiting(event)
        if not self._is_justified(task, event, record.at_ms):
            raise Violation("I1", f"{event} without a reason: {task}")
        self._seen[f"{task.kind} {event['state']}"] += 1
        task.failure = event.get("error", task.failure)
        self._tables.end(task, event["state"], event.get("result"))

    def _is_justified(self, task: CheckedTask, event: dict[str, Any], at_ms: int) -> bool:
        error = event.get("error") or {}
        if event["state"] == "cancelled":
            return task.cancel
        if event["state"] == "expired":
            deadline = _deadline(task)
            return deadline is not None and at_ms >= deadline - 1
        if event["state"] == "succeeded":
            decided = task.kind in ("gate", "signal") and task.decided is not UNDECIDED
            return decided and event.get("result") == task.decided and self._holds(task)
        if task.refused:
            said = (error.get("type"), error.get("field"))
            return said == (*task.refused, None)[:2]
        if task.failure is not None:
            return not self._may_retry(task)
        lost = task.lost >= self._lost_limit or task.unstarted >= _UNSTARTED_LIMIT
        return lost or self._cannot_be_made(task)

    def _holds(self, task: CheckedTask) -> bool:
        return task.view is not None and task.view.holds(*task.place)

    def _cannot_be_made(self, task: CheckedTask) -> bool:
        if task.view is not None and task.place[0] and task.kind != "undo":
            try:
                if task.view.holds(*task.place) and task.kind in ("task", "flow"):
                    task.view.payload(*task.place)
            except NotThere:
                return True
        return False

    # -- schedules

    def fired(self, record: Stored, event: dict[str, Any]) -> None:
        """At its minute and not before, numbered without a gap, and never two at once unasked."""
        schedule, at_ms = self._tables.schedules.get(event["task"]), record.at_ms
        if schedule is None or event["number"] not in (schedule.number, schedule.number + 1):
            raise Violation("cron", f"{event} of {schedule}")
        busy = schedule.last in self._tables.tasks and not schedule.overlap
        due = schedule.next_at is not None and at_ms >= schedule.next_at - 1
        if (schedule.next_at is not None and not due) or event["next_at"] % _CRON_MS:
            raise Violation("cron", f"{event} at {at_ms}, due at {schedule.next_at}")
        if event["next_at"] <= (schedule.next_at or 0) or event["next_at"] > at_ms + _CRON_MS + 1:
            raise Violation("cron", f"{event} at {at_ms} skips a time")
        schedule.next_at = event["next_at"]
        if event["number"] > schedule.number:
            if not due or busy:
                raise Violation("cron", f"{event} is not due, or the one before has not ended")
            schedule.number = event["number"]
            schedule.last = f"{schedule.id}.cron.{schedule.number}"
            made = schedule.template
            self._tables.add(
                CheckedTask(
                    id=schedule.last,
                    tenant=made.tenant,
                    capability=made.capability,
                    payload=made.payload,
                    terms=made.terms,
                    draw=made.draw,
                    since=at_ms,
                )
            )

    # -- steps

    def skipped(self, event: dict[str, Any]) -> None:
        """The condition of the step does not hold."""
        task = self._waiting(event)
        if task.view is None or task.view.holds(*task.place):
            raise Violation("I5", f"{event}, but its condition holds")
        self._tables.end(task, "skipped")
        self._tables.ends[task.id] -= 1

    def entered(self, event: dict[str, Any]) -> None:
        """The workflow inside a step begins, with the inputs that it must have."""
        task, tables = self._waiting(event), self._tables
        view = task.view
        inside = view.spec.steps[task.place[0]].flow if view is not None else None
        if view is None or inside is None or not view.holds(*task.place):
            raise Violation("I5", f"{event} enters what is no workflow, or shall not run")
        inputs = view.payload(*task.place)
        if event.get("inputs", inputs) != inputs:
            raise Violation("I5", f"{event} enters with other inputs than {inputs}")
        del tables.tasks[task.id]
        tables.asleep.pop(task.id, None)
        inner = tables.begin(task.id, task.tenant, inside, inputs, view, task.place)
        inner.paused = task.paused
        if task.cancel:
            tables.halt(inner, view.ending or "cancelled")

    def expanded(self, event: dict[str, Any]) -> None:
        """The elements of a fan-out are counted; or the workflow's output cannot be made."""
        view = self._tables.flows.get(event["task"])
        step = event["step"]
        if view is not None and not step:
            self._spoil(view, event)
            return
        if view is None or step not in view.unexpanded():
            if view is None or view.ending is not None or step in view.fate:
                return  # it was stopped while this was on its way
            raise Violation("I5", f"{event} expands what is not to be expanded")
        when = view.spec.steps[step].when
        try:
            holds = when is None or when[0][0] == "item" or view.holds(step, 0)
            expected = len(view.items(step)) if holds else -2
        except NotThere:
            expected = -1
        found = -1 if "error" in event else -2 if "skipped" in event else event.get("items", 0)
        if found != expected:
            raise Violation("I5", f"{event} has the wrong number of items, not {expected}")
        if found >= 0:
            view.total[step] = found
        else:
            view.fate[step] = "failed" if found == -1 else "skipped"
        self._tables.grow(view)

    def _spoil(self, view: FlowView, event: dict[str, Any]) -> None:
        if self._tables.is_open(view) or view.failing:
            return
        try:
            view.output()
        except NotThere:
            view.spoilt = True
            self._tables.grow(view)
        else:
            raise Violation("I5", f"{event}, but the output can be made")

    # -- workflows

    def _settle_flow(self, view: FlowView, event: dict[str, Any]) -> None:
        state = event["state"]
        if self._tables.is_open(view):
            if view.ending is None:
                raise Violation("I5", f"{event}, while {self._tables.own(view)} are open")
            return  # it was halted while this was on its way, and first undoes what it did
        left = [n for n in view.spec.steps if not view.over(n) and n not in view.released]
        if left and not view.failing:
            raise Violation("I5", f"{event}, but {left} can still run")
        if view.undos:
            raise Violation("undo", f"{event}, but {view.undos} are to be undone")
        try:
            output: dict[str, Any] | None = None if view.spoilt else view.output()
        except NotThere:
            output = None
        natural = "failed" if output is None or left else "succeeded"
        if state not in (natural if view.ending is None else view.ending, natural):
            raise Violation("I5", f"workflow {event}, must be {view.ending or natural}")
        if state == "succeeded" and event.get("result", output) != output:
            raise Violation("I5", f"workflow came to {event['result']}, not {output}")
        self._seen[f"workflow {state}"] += 1
        self._tables.end_flow(view, state, output)


def _deadline(task: CheckedTask) -> float | None:
    """When a task expires: in all, and as long as it was never begun, in its queue."""
    timeouts = task.terms.get("timeouts", {})
    found = [task.since + timeouts["total"] * 1000] if "total" in timeouts else []
    if "queue" in timeouts and not (task.errors or task.lost or task.unstarted):
        found.append(max(task.since, task.not_before) + timeouts["queue"] * 1000)
    return min(found, default=None)
