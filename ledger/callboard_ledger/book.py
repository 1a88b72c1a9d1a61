"""The rows that an event may still change, in memory; what changed; and what never will again.

A row leaves memory once it has ended and is saved, but for two kinds: what ended without success
may begin again (`Dead`), and the elements of a workflow stay with it as long as it does.
"""

from __future__ import annotations

from callboard_broker.record import Record
from callboard_broker.rule import MAX_DEAD, MAX_DEAD_FLOWS
from callboard_broker.wire import Outcome
from callboard_ledger.allocations import Allocations
from callboard_ledger.budgets import Budgets
from callboard_ledger.dead import Dead
from callboard_ledger.performance import (
    HOUR_MS,
    FailureKey,
    FailureTally,
    Performance,
    PerformanceKey,
    pattern_of,
)
from callboard_ledger.rows import Changes, CommandRow, Flow, Merge, Row, Schedule, Task, add_used

__all__ = ["Book", "element_key"]


_MOST_MESSAGE = 500


def element_key(step: str | None, idx: int | None) -> str:
    """Under which a workflow knows an element: `build.0`."""
    return f"{step}.{idx}"


class Book:
    """tasks, flows, schedules: by id, what is live, and what ended since it was last saved.

    commands: those that the router has not answered, by id. asked: the same by what they may start
    again: for a resume, the outermost workflow. children: the tasks that a task has spawned.
    performance: what attempts and failures add to the figures since the last save. allocations:
    what attempts hold. budgets: how far what they draw on is in use.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.flows: dict[str, Flow] = {}
        self.schedules: dict[str, Schedule] = {}
        self.commands: dict[str, CommandRow] = {}
        self.asked: dict[str, list[CommandRow]] = {}
        self.children: dict[str, list[str]] = {}
        self.dead: Dead[Task] = Dead(MAX_DEAD, self._forget)
        self.dead_flows: Dead[Flow] = Dead(MAX_DEAD_FLOWS, self._forget)
        self.at_ms = 0
        self.dirty: list[Task] = []
        self.dirty_flows: list[Flow] = []
        self.dirty_schedules: list[Schedule] = []
        self.dirty_commands: list[CommandRow] = []
        self.merges: list[Merge] = []
        self.gone: list[int] = []
        self.performance = Performance()
        self.allocations = Allocations()
        self.budgets = Budgets()
        self._final: list[Row] = []

    def pass_time(self, record: Record) -> int:
        """The time of the fold, in milliseconds: that of the latest record; it never goes back."""
        self.at_ms = max(self.at_ms, record.at_ns // 1_000_000)
        return self.at_ms

    def restore(self, saved: Changes) -> None:
        """Take in the rows of a store; the book is empty before."""
        self.at_ms = saved.at_ms
        flows = {flow.id: flow for flow in saved.flows}
        for flow in saved.flows:
            home = None if flow.flow is None else flows.get(flow.flow)
            if home is not None:
                home.rows[element_key(flow.step, flow.idx)] = flow
                if flow.state == "waiting":
                    continue  # to be entered again
            if not flow.ended:
                self.flows[flow.id] = flow
        for task in saved.tasks:
            home = None if task.flow is None or task.scheduled else flows.get(task.flow)
            if home is not None and task.step is not None:
                home.rows[element_key(task.step, task.idx)] = task
            if not task.ended:
                self.tasks[task.id] = task
                self.adopt(task)
            elif task.step is None or task.scheduled:
                self.dead.bury(task, task.ended_at or 0)
        for flow in saved.flows:
            if flow.ended and flow.flow is None and not flow.refused:
                self.dead_flows.bury(flow, flow.ended_at or 0)
        for schedule in saved.schedules:
            self.schedules[schedule.id] = schedule
        for command in saved.commands:
            self.ask(command)
        self.allocations.restore(saved.allocations)
        self.budgets.restore(saved.accounts)
        self._final.clear()

    def adopt(self, task: Task) -> None:
        """Somebody may have spawned it: what is cancelled is cancelled with all that it spawned."""
        if task.parent is not None:
            self.children.setdefault(task.parent, []).append(task.id)

    def row(self, row_id: str) -> Task | Flow | Schedule | None:
        """The row with this id; None if there is none, or it is final and was saved."""
        found = self.tasks.get(row_id) or self.flows.get(row_id) or self.schedules.get(row_id)
        if found is not None:
            return found
        buried = self.dead.get(row_id) or self.dead_flows.get(row_id)
        return buried if buried is not None else self.element(row_id)

    def element(self, row_id: str) -> Task | Flow | None:
        """An element of a workflow that is in memory, whether it has ended or not."""
        flow_id, *rest = row_id.rsplit(".", 2)
        if len(rest) != 2:
            return None
        home = self.flows.get(flow_id) or self.dead_flows.get(flow_id)
        if home is None:
            inner = self.element(flow_id)
            home = inner if isinstance(inner, Flow) else None
        return None if home is None else home.rows.get(".".join(rest))

    # -- commands that are not answered

    def ask(self, command: CommandRow) -> None:
        """The router has not answered it yet."""
        self.commands[command.id] = command
        self.asked.setdefault(_meant(command), []).append(command)

    def answered(self, command: CommandRow) -> None:
        """It has, or the command is none."""
        del self.commands[command.id]
        name = _meant(command)
        left = [other for other in self.asked[name] if other is not command]
        if left:
            self.asked[name] = left
        else:
            del self.asked[name]

    # -- what changed

    def touch(self, task: Task) -> None:
        if not task.dirty:
            task.dirty = True
            self.dirty.append(task)

    def touch_flow(self, flow: Flow) -> None:
        if not flow.dirty:
            flow.dirty = True
            self.dirty_flows.append(flow)

    def touch_schedule(self, schedule: Schedule) -> None:
        if not schedule.dirty:
            schedule.dirty = True
            self.dirty_schedules.append(schedule)

    def touch_command(self, command: CommandRow) -> None:
        if not command.dirty:
            command.dirty = True
            self.dirty_commands.append(command)

    def spend(self, task: Task, used: dict[str, float]) -> None:
        """An attempt of the task has used units: they count for each workflow around it that still
        lives, also where one between them has ended (what it spawned may outlive it)."""
        add_used(task, used)
        name = task.flow
        while name is not None:
            flow = self.flows.get(name)
            if flow is not None and not flow.ended:
                add_used(flow, used)
                self.touch_flow(flow)
            name = name.rsplit(".", 2)[0] if "." in name else None

    def spend_late(self, task: Task, event: Outcome) -> None:
        """What a lost attempt has used counts all the same, once, on the proof of its secret."""
        void = task.void
        if not event.used or task.ended or void is None:
            return
        if void.get(event.attempt) == event.secret:
            del void[event.attempt]
            self.spend(task, event.used)
            key = self._key(task, self.at_ms, event.agent, event.version)
            self.performance.spent(key, event.used)
            self.budgets.correct(task.tenant, task.capability, task.draws, event.used)
            self.touch(task)

    # -- what is counted

    def attempted(self, task: Task, event: Outcome, at_ms: int, ready_at: int | None) -> None:
        """The current attempt has ended with an outcome; see `Performance`."""
        key = self._key(task, at_ms, event.agent, event.version)
        self.performance.attempted(key, event, task.dispatched_at, ready_at)

    def attempt_lost(self, task: Task, at_ms: int) -> None:
        """The current attempt is lost, and nobody knows which agent had it."""
        self.performance.lost(self._key(task, at_ms, "", ""))

    def failed(self, task: Task, at_ms: int) -> None:
        """The task has ended; it counts among the failures if it has failed or expired."""
        error = task.failure
        if error is None or task.state not in ("failed", "expired"):
            return
        agent, version = task.agent or ("", "")
        pattern = pattern_of(error)
        key = FailureKey(task.tenant, error.type, pattern, task.capability, agent, version)
        message = error.message[:_MOST_MESSAGE]
        self.performance.failed(key, FailureTally(1, at_ms, at_ms, task.id, message))

    def _key(self, task: Task, at_ms: int, agent: str, version: str) -> PerformanceKey:
        return PerformanceKey(at_ms // HOUR_MS, task.tenant, task.capability, agent, version)

    # -- what goes

    def drop(self, task: Task) -> None:
        """The row turned out to be none; a store deletes it before it writes those that changed."""
        self.tasks.pop(task.id, None)
        self.gone.append(task.seq)
        if task.dirty:
            self.dirty = [other for other in self.dirty if other is not task]

    def saved(self, changes: Changes) -> list[Row]:
        """`changes` is stored. Returns the rows that nothing can change any more: they go."""
        final, self._final = self._final, []
        for task in changes.tasks:
            task.dirty = False
            if task.ended:
                self.tasks.pop(task.id, None)
                if self.children:
                    self.children.pop(task.id, None)
                alone = task.step is None or task.scheduled
                if alone and (task.state == "succeeded" or self.dead.get(task.id) is not task):
                    final.append(task)
        for flow in changes.flows:
            flow.dirty = False
            flow.stored = True
            if flow.ended:
                self.flows.pop(flow.id, None)
                if flow.flow is None and self.dead_flows.get(flow.id) is not flow:
                    final.extend(_tree(flow))
        for schedule in changes.schedules:
            schedule.dirty = False
            if schedule.ended and self.schedules.pop(schedule.id, None) is not None:
                final.append(schedule)
        for command in changes.commands:
            command.dirty = False
        self.dirty, self.dirty_flows, self.merges, self.gone = [], [], [], []
        self.dirty_schedules, self.dirty_commands = [], []
        self.performance = Performance()
        self.allocations.saved()
        self.budgets.saved()
        return final

    def _forget(self, row: Task | Flow) -> None:
        """It was dead for too long. One that is not saved yet goes when it is."""
        if not row.dirty:
            self._final.extend(_tree(row) if isinstance(row, Flow) else [row])


def _meant(command: CommandRow) -> str:
    return command.target.partition(".")[0] if command.verb == "resume" else command.target


def _tree(flow: Flow) -> list[Row]:
    """A workflow and all that are in it."""
    found: list[Row] = [flow]
    for row in flow.rows.values():
        found.extend(_tree(row) if isinstance(row, Flow) else [row])
    return found
