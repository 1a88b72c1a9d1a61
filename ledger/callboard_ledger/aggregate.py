"""The state of every task and workflow: a pure fold of the journal, without I/O or a clock.

A record at or below `position` changes nothing, so a record may come twice. The broker's rule
decides what an event does to a task; here stand the conditions around it: an event of another
tenant's subject is void, and so is a router's event whose epoch is not the current one. Rows that
have ended leave memory once they are saved: nothing can change them any more, and an event that
names a task which is not here is void for exactly that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from callboard_broker.record import Record
from callboard_broker.rule import (
    Life,
    TaskState,
    apply_dispatch,
    apply_lost,
    apply_outcome,
    apply_settled,
)
from callboard_broker.subjects import SHARDS, Subjects
from callboard_broker.wire import (
    Budget,
    Dispatch,
    Expanded,
    Failure,
    FlowRun,
    Lost,
    Merged,
    Outcome,
    Post,
    Quarantined,
    Settled,
)
from callboard_ledger.flow_plan import expand, plan
from callboard_ledger.reading import Reading, read
from callboard_ledger.rows import Changes, Flow, Merge, Task

__all__ = ["Aggregator", "Verdict"]

Verdict = Literal["accepted", "void", "malformed", "repeated"]
"""What became of a record: it counts; it stands in the journal and means nothing; it cannot be
read; it was folded before."""


class Aggregator:
    """The fold. `apply` each record in order; now and then save `changes()` and say `saved()`."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
        self.position = 0
        """The last record that was folded."""
        self.epoch = 0
        self.void = 0
        self.malformed = 0
        self.tasks: dict[str, Task] = {}
        self.flows: dict[int, Flow] = {}
        self._dirty: list[Task] = []
        self._dirty_flows: list[Flow] = []
        self._merges: list[Merge] = []
        self._saved_position = 0
        self._folds: dict[str, Callable[[Record, Reading], bool]] = {
            "post": self._post,
            "dispatch": self._dispatch,
            "outcome": self._outcome,
            "lost": self._lost,
            "settled": self._settled,
            "flow": self._flow,
            "epoch": self._epoch,
            "merged": self._merged,
            "expanded": self._expanded,
            "budget": self._notice,
            "quarantined": self._notice,
        }

    def restore(self, saved: Changes) -> None:
        """Begin where a store left off: `saved` holds the rows that have not ended."""
        self.position = self._saved_position = saved.position
        self.epoch, self.void, self.malformed = saved.epoch, saved.void, saved.malformed
        self.tasks = {task.id: task for task in saved.tasks}
        self.flows = {flow.seq: flow for flow in saved.flows}
        self._dirty, self._dirty_flows, self._merges = [], [], []

    def apply(self, record: Record) -> Verdict:
        """Fold one record of the journal. Never raises for anything that a journal can hold."""
        return self.fold(record, read(self._subjects, record))

    def fold(self, record: Record, reading: Reading) -> Verdict:
        """The same for a record that was read already."""
        if record.seq <= self.position:
            return "repeated"
        self.position = record.seq
        fold = self._folds.get(reading.address.kind)
        accepted = fold is not None and fold(record, reading)
        if reading.problem is not None:
            self.malformed += 1
            return "malformed"
        if accepted:
            return "accepted"
        self.void += 1
        return "void"

    def row(self, resource: str) -> Task | Flow | None:
        """The task or workflow with this id; None if there is none, or it ended and was saved."""
        task = self.tasks.get(resource)
        seq = None if task is not None else _number(resource)
        return task if seq is None else self.flows.get(seq)

    @property
    def unsaved(self) -> int:
        """How far the last saved position lies behind, in sequences."""
        return self.position - self._saved_position

    def changes(self) -> Changes:
        """Everything that changed since the last `saved`, for one transaction of a store."""
        return Changes(
            position=self.position,
            epoch=self.epoch,
            void=self.void,
            malformed=self.malformed,
            tasks=self._dirty,
            flows=self._dirty_flows,
            merges=self._merges,
        )

    def saved(self, changes: Changes) -> None:
        """`changes` is stored: forget the rows in it that nothing can change any more."""
        for task in changes.tasks:
            task.dirty = False
            if task.ended:
                self.tasks.pop(task.id, None)
        for flow in changes.flows:
            flow.dirty = False
            if flow.ended:
                self.flows.pop(flow.seq, None)
        self._saved_position = changes.position
        self._dirty, self._dirty_flows, self._merges = [], [], []

    # What one kind of record does. Each returns whether the record counts.

    def _post(self, record: Record, reading: Reading) -> bool:
        task = Task(
            id=reading.resource,
            seq=record.seq,
            tenant=reading.address.tenant,
            capability=reading.address.rest,
            shard=record.seq % SHARDS,
            posted_at=record.at_ns // 1_000_000,
            failure=reading.problem,  # if any: it waits for the router to end it
            dirty=True,
        )
        event = reading.event
        if isinstance(event, Post):
            task.priority = event.priority
            if event.shard is not None:
                task.shard = event.shard
        self.tasks[task.id] = task
        self._dirty.append(task)
        return True

    def _dispatch(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Dispatch) or event.epoch != self.epoch:
            return False
        tenant = reading.address.tenant
        task = self.tasks.get(event.task)
        if task is None:
            task = self._step(event.task, tenant, record.seq)
            if task is None or not apply_dispatch(task, event):
                return False
            self._begin(task)
        elif task.tenant != tenant or not apply_dispatch(task, event):
            return False
        task.dispatch_seq = record.seq
        task.dispatched_at = record.at_ns // 1_000_000
        if task.flow is not None:
            task.shard = event.shard
            self._count(task, "waiting")
        self._touch(task)
        return True

    def _outcome(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Outcome):
            return False
        task = self.tasks.get(event.task)
        if task is None or task.tenant != reading.address.tenant or not apply_outcome(task, event):
            return False
        task.host = event.host
        if event.error is None:
            task.end_seq = record.seq
            task.ended_at = record.at_ns // 1_000_000
        if task.flow is not None:
            self._count(task, "running")
        self._touch(task)
        return True

    def _lost(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Lost) or event.epoch != self.epoch:
            return False
        task = self.tasks.get(event.task)
        if task is None or task.tenant != reading.address.tenant or not apply_lost(task, event):
            return False
        task.host = event.host
        if task.flow is not None:
            self._count(task, "running")
        self._touch(task)
        return True

    def _settled(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Settled) or event.epoch != self.epoch:
            return False
        tenant = reading.address.tenant
        task = self.tasks.get(event.task)
        if task is None:
            flow = self._flow_of(event.task, tenant)
            if flow is not None:
                return self._end_flow(flow, record, event.state, event.error)
            task = self._step(event.task, tenant, record.seq)
            if task is None or not apply_settled(task, event):
                return False
            self._begin(task)
        elif task.tenant != tenant or not apply_settled(task, event):
            return False
        task.end_seq = record.seq
        task.ended_at = record.at_ns // 1_000_000
        if task.flow is not None:
            self._count(task, "waiting")
        self._touch(task)
        return True

    def _flow(self, record: Record, reading: Reading) -> bool:
        verb = reading.address.rest
        flow = Flow(
            seq=record.seq,
            tenant=reading.address.tenant,
            name="" if verb == "run" else verb,
            posted_at=record.at_ns // 1_000_000,
            shard=record.seq % SHARDS,
            error=reading.problem,
            steps={},
            known=set(),
            dirty=True,
        )
        if isinstance(reading.event, FlowRun):
            plan(flow, reading.event)
        self.flows[flow.seq] = flow
        self._dirty_flows.append(flow)
        return True

    def _epoch(self, record: Record, reading: Reading) -> bool:
        if reading.problem is not None:
            return False
        self.epoch = record.seq
        return True

    def _merged(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Merged) or event.epoch != self.epoch:
            return False
        tenant = reading.address.tenant
        task = self.tasks.get(event.task)
        if task is not None:
            if task.tenant != tenant or task.flow is not None or not _untouched(task):
                return False
            del self.tasks[task.id]  # a store deletes its row after it wrote those that changed
            self._merges.append(Merge(task.seq, tenant, event.same_as))
            return True
        flow = self._flow_of(event.task, tenant)
        if flow is None or flow.state != "waiting" or flow.known:
            return False
        del self.flows[flow.seq]
        self._merges.append(Merge(flow.seq, tenant, event.same_as))
        return True

    def _expanded(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Expanded) or event.epoch != self.epoch:
            return False
        flow = self._flow_of(event.task, reading.address.tenant)
        step = flow.steps.get(event.step) if flow is not None else None
        if flow is None or flow.ended or step is None or step.total is not None:
            return False
        if step.follows is not None:
            return False
        if event.error is None:
            expand(flow, step, event.items)
        else:
            step.total = step.failed = 1
        self._touch_flow(flow)
        return True

    def _notice(self, _record: Record, reading: Reading) -> bool:
        """Budgets and quarantined records change nothing that the ledger tells."""
        event = reading.event
        return isinstance(event, Budget | Quarantined) and event.epoch == self.epoch

    # Steps and workflows.

    def _flow_of(self, task_id: str, tenant: str) -> Flow | None:
        """The workflow with this id, if it is this tenant's."""
        seq = _number(task_id)
        flow = None if seq is None else self.flows.get(seq)
        return flow if flow is not None and flow.tenant == tenant else None

    def _step(self, task_id: str, tenant: str, seq: int) -> Task | None:
        """A row for `<flow>.<step>.<index>` if that is a step which has none yet."""
        head, _, rest = task_id.partition(".")
        name, _, index = rest.partition(".")
        flow = self._flow_of(head, tenant)
        idx = _number(index)
        if flow is None or flow.ended or idx is None or rest in flow.known:
            return None
        step = flow.steps.get(name)
        if step is None:
            return None
        return Task(
            id=task_id,
            seq=seq,
            tenant=tenant,
            capability=step.capability,
            priority=step.priority,
            flow=flow.seq,
            step=name,
            idx=idx,
        )

    def _begin(self, task: Task) -> None:
        """The first event of a step counts: from here on it has a row."""
        if task.flow is None:
            return
        flow = self.flows[task.flow]
        flow.known.add(f"{task.step}.{task.idx}")
        flow.open += 1
        if task.state == "running" and flow.state == "waiting":
            flow.state = "running"
        self.tasks[task.id] = task

    def _count(self, task: Task, before: TaskState) -> None:
        """A step went from `before` to its present state: its workflow's counts follow."""
        flow = self.flows.get(task.flow) if task.flow is not None else None
        step = flow.steps.get(task.step or "") if flow is not None else None
        if flow is None or step is None:
            return
        if before == "running":
            step.running -= 1
        if task.state == "running":
            step.running += 1
        elif task.state == "succeeded":
            step.succeeded += 1
        elif task.state != "waiting":
            step.failed += 1
        if task.ended:
            flow.open -= 1
        self._touch_flow(flow)

    def _end_flow(
        self, flow: Flow, record: Record, state: TaskState, error: Failure | None
    ) -> bool:
        if flow.ended or flow.open:
            return False
        flow.state = state
        flow.error = error or flow.error
        flow.end_seq = record.seq
        flow.ended_at = record.at_ns // 1_000_000
        self._touch_flow(flow)
        return True

    def _touch(self, task: Task) -> None:
        if not task.dirty:
            task.dirty = True
            self._dirty.append(task)

    def _touch_flow(self, flow: Flow) -> None:
        if not flow.dirty:
            flow.dirty = True
            self._dirty_flows.append(flow)


def _untouched(life: Life) -> bool:
    return life.state == "waiting" and life.attempt == 0


def _number(text: str) -> int | None:
    """`text` as a sequence or an index, if it is written the one way that we write it."""
    if not text.isdecimal() or not text.isascii() or len(text) > 19:
        return None
    return int(text) if text == "0" or text[0] != "0" else None
