"""The state of every task and workflow: a pure fold of the journal, without I/O or a clock.

A record at or below `position` changes nothing, so a record may come twice. The broker's rule
decides what an event does to a task; here stand the conditions around it: an event of another
tenant's subject is void, and so is a router's event whose epoch is not the current one. Rows that
have ended leave memory once they are saved (`Book` says which stay), and an event that names a
task which is not here is void for exactly that reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

from callboard_broker.graph import UNDO
from callboard_broker.record import Record
from callboard_broker.rule import (
    apply_checkpoint,
    apply_dispatch,
    apply_lost,
    apply_outcome,
    apply_retrying,
    apply_settled,
)
from callboard_broker.subjects import SHARDS, Subjects
from callboard_broker.wire import (
    Answered,
    Budget,
    Checkpoint,
    Command,
    Dispatch,
    Entered,
    Expanded,
    Fired,
    FlowRun,
    Halted,
    Lost,
    Merged,
    Outcome,
    Quarantined,
    Retrying,
    Settled,
    Skipped,
)
from callboard_ledger.allocations import Allocation
from callboard_ledger.book import Book
from callboard_ledger.budgets import Account
from callboard_ledger.command_rows import (
    carry_out,
    live_flow,
    mark_cancelled,
    take_answer,
    take_command,
)
from callboard_ledger.flow_life import end_flow, enter
from callboard_ledger.flow_plan import plan
from callboard_ledger.merges import merge
from callboard_ledger.post_rows import take_post
from callboard_ledger.reading import Reading, read
from callboard_ledger.rows import Changes, Flow, Row, Schedule, Task, remember
from callboard_ledger.schedules import end_schedule, fire
from callboard_ledger.waking import WAKING, apart, unanswered
from callboard_ledger.workflows import (
    begin_step,
    continue_attempts,
    count,
    end_unentered,
    find_step,
    ready_at,
    skip,
    take_expansion,
)

__all__ = ["Aggregator", "Verdict"]

Verdict = Literal["accepted", "void", "malformed", "repeated"]
"""What became of a record: it counts; it stands in the journal and means nothing; it cannot be
read; it was folded before."""

_MOST_VOID = 8


class Aggregator:
    """The fold. `apply` each record in order; now and then save `changes()` and say `saved()`."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
        self.position = 0
        """The last record that was folded."""
        self.epoch = 0
        self.void = 0
        self.malformed = 0
        self._book = Book()
        self._saved_position = 0
        self._folds: dict[str, Callable[[Record, Reading], bool]] = {
            "post": self._post,
            "dispatch": self._dispatch,
            "outcome": self._outcome,
            "checkpoint": self._checkpoint,
            "lost": self._lost,
            "retrying": self._retrying,
            "settled": self._settled,
            "flow": self._flow,
            "epoch": self._epoch,
            "merged": self._merged,
            "answered": self._answered,
            "expanded": self._expanded,
            "entered": self._entered,
            "skipped": self._skipped,
            "fired": self._fired,
            "halted": self._halted,
            "budget": self._budget,
            "quarantined": self._quarantined,
        }

    @property
    def tasks(self) -> dict[str, Task]:
        """Tasks that live, and those that ended since they were last saved."""
        return self._book.tasks

    @property
    def flows(self) -> dict[str, Flow]:
        """Workflows, likewise."""
        return self._book.flows

    @property
    def schedules(self) -> dict[str, Schedule]:
        """Schedules, likewise."""
        return self._book.schedules

    @property
    def held(self) -> dict[str, Allocation]:
        """What attempts hold, by task."""
        return self._book.allocations.held

    @property
    def accounts(self) -> dict[str, Account]:
        """Budgets that are limited or in use, and those that were in use when last saved."""
        return self._book.budgets.accounts

    def restore(self, saved: Changes) -> None:
        """Begin where a store left off: `saved` holds the rows that may still change."""
        self.position = self._saved_position = saved.position
        self.epoch, self.void, self.malformed = saved.epoch, saved.void, saved.malformed
        self._book = Book()
        self._book.restore(saved)

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
        if not accepted and self._book.asked and fold is not None and self._wakes(record, reading):
            accepted = fold(record, reading)
        if reading.problem is not None:
            self.malformed += 1
            return "malformed"
        if accepted:
            return "accepted"
        self.void += 1
        return "void"

    def row(self, resource: str) -> Row | None:
        """What has this id; None if there is nothing, or nothing can change it any more."""
        return self._book.row(resource) or self._book.commands.get(resource)

    def target(self, resource: str) -> str | None:
        """What the command of this id is about, while it is not answered."""
        command = self._book.commands.get(resource)
        return None if command is None else command.target

    @property
    def unsaved(self) -> int:
        """How far the last saved position lies behind, in sequences."""
        return self.position - self._saved_position

    def changes(self) -> Changes:
        """Everything that changed since the last `saved`, for one transaction of a store."""
        book = self._book
        accounts, closed = book.budgets.changed()
        return Changes(
            position=self.position,
            at_ms=book.at_ms,
            epoch=self.epoch,
            void=self.void,
            malformed=self.malformed,
            tasks=book.dirty,
            flows=book.dirty_flows,
            schedules=book.dirty_schedules,
            commands=book.dirty_commands,
            merges=book.merges,
            gone=book.gone,
            performance=book.performance,
            allocations=book.allocations.changed,
            accounts=accounts,
            closed=closed,
        )

    def saved(self, changes: Changes) -> list[Row]:
        """`changes` is stored. Returns the rows that nothing can change any more: they are gone."""
        self._saved_position = changes.position
        return self._book.saved(changes)

    # What one kind of record does. Each returns whether the record counts.

    def _post(self, record: Record, reading: Reading) -> bool:
        take_post(self._book, record, reading)
        return True

    def _dispatch(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Dispatch) or event.epoch != self.epoch:
            return False
        address = reading.address
        if address.box != (event.host or ""):
            return False
        book = self._book
        task = book.tasks.get(event.task)
        if task is None or task.end_seq is not None:
            task = find_step(book, event.task, address.tenant, record.seq, event.attempt)
        if task is None or task.tenant != address.tenant:
            return False
        if task.generation:
            continue_attempts(task, event)
        if not apply_dispatch(task, event):
            return False
        if task.dispatch_seq is not None:
            remember(task, task.dispatch_seq)
        task.dispatch_seq = record.seq
        task.dispatched_at = record.at_ns // 1_000_000
        task.host = event.host
        if task.step is not None and not task.scheduled:
            task.shard = event.shard
            if task.id not in book.tasks:
                begin_step(book, task)
                if task.step == UNDO and not task.capability:
                    task.capability = event.capability or address.rest
            count(book, task, "waiting")
        book.allocations.begin(task, record.seq, reading.address, event)
        book.budgets.take(task.tenant, task.capability, task.draws)
        if not task.dirty:
            task.dirty = True
            book.dirty.append(task)
        return True

    def _outcome(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Outcome):
            return False
        book = self._book
        task = book.tasks.get(event.task)
        if task is None or task.tenant != reading.address.tenant:
            return False
        if not apply_outcome(task, event):
            book.spend_late(task, event)
            return False
        task.host = event.host
        if event.used:
            book.spend(task, event.used)
        at_ms = record.at_ns // 1_000_000
        book.allocations.end(task.id, record.seq, at_ms, event)
        book.budgets.give_back(task.tenant, task.capability, task.draws, event.used)
        book.attempted(task, event, at_ms, ready_at(book, task))
        if event.error is None:
            task.end_seq = record.seq
            task.ended_at = at_ms
        else:
            task.agent = (event.agent, event.version)
            remember(task, record.seq)
        if task.step is not None and not task.scheduled:
            count(book, task, "running")
        if not task.dirty:
            task.dirty = True
            book.dirty.append(task)
        return True

    def _checkpoint(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Checkpoint):
            return False
        task = self._book.tasks.get(event.task)
        if task is None or task.tenant != reading.address.tenant:
            return False
        if not apply_checkpoint(task, event):
            return False
        self._book.touch(task)
        return True

    def _lost(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Lost) or event.epoch != self.epoch:
            return False
        task = self._book.tasks.get(event.task)
        if task is None or task.tenant != reading.address.tenant:
            return False
        secret = task.secret
        if not apply_lost(task, event):
            return False
        void = {} if task.void is None else task.void
        task.void = {**dict(list(void.items())[1 - _MOST_VOID :]), event.attempt: secret}
        task.host = event.host
        task.agent = None
        book, at_ms = self._book, record.at_ns // 1_000_000
        book.attempt_lost(task, at_ms)
        book.allocations.end(task.id, record.seq, at_ms, event)
        book.budgets.give_back(task.tenant, task.capability, task.draws, {})
        remember(task, record.seq)
        if task.step is not None and not task.scheduled:
            count(book, task, "running")
        book.touch(task)
        return True

    def _retrying(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Retrying) or event.epoch != self.epoch:
            return False
        task = self._book.tasks.get(event.task)
        if task is None or task.tenant != reading.address.tenant or not apply_retrying(task, event):
            return False
        task.not_before = event.at
        remember(task, record.seq)
        self._book.touch(task)
        return True

    def _settled(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Settled) or event.epoch != self.epoch:
            return False
        book = self._book
        tenant = reading.address.tenant
        self._book.pass_time(record)
        flow = live_flow(book, event.task, tenant)
        if flow is not None:
            return end_flow(book, flow, record, event)
        schedule = book.schedules.get(event.task)
        if schedule is not None:
            return schedule.tenant == tenant and end_schedule(book, schedule, record, event)
        task = book.tasks.get(event.task)
        if task is None or task.end_seq is not None:
            if end_unentered(book, event.task, tenant, record, (event.state, event.error)):
                return True
            task = find_step(book, event.task, tenant, record.seq)
            if task is None or not apply_settled(task, event):
                return False
            if task.id not in book.tasks:
                begin_step(book, task)
        elif task.tenant != tenant or not apply_settled(task, event):
            return False
        task.end_seq = record.seq
        task.ended_at = record.at_ns // 1_000_000
        book.failed(task, task.ended_at)
        if task.step is not None and not task.scheduled:
            count(book, task, "waiting")
        elif task.dead:
            book.dead.bury(task, book.at_ms)
        book.touch(task)
        return True

    def _flow(self, record: Record, reading: Reading) -> bool:
        address = reading.address
        event = reading.event
        if address.rest != "run":
            said = event if isinstance(event, Command) else None
            take_command(self._book, record, address, said, reading.problem)
            return True
        flow = Flow(
            id=reading.resource,
            seq=record.seq,
            tenant=address.tenant,
            posted_at=record.at_ns // 1_000_000,
            shard=record.seq % SHARDS,
            error=reading.problem,
            steps={},
            rows={},
        )
        if isinstance(event, FlowRun):
            plan(flow, event)
        self._book.flows[flow.id] = flow
        self._book.touch_flow(flow)
        return True

    def _epoch(self, record: Record, _reading: Reading) -> bool:
        """Also one that cannot be read: the server's guard names it from here on."""
        self.epoch = record.seq
        return True

    def _merged(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Merged) or event.epoch != self.epoch:
            return False
        return merge(self._book, reading.address.tenant, event)

    def _answered(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Answered) or event.epoch != self.epoch:
            return False
        self._book.pass_time(record)
        return take_answer(self._book, record, reading.address.tenant, event)

    def _expanded(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Expanded) or event.epoch != self.epoch:
            return False
        flow = live_flow(self._book, event.task, reading.address.tenant)
        return flow is not None and take_expansion(self._book, flow, event)

    def _entered(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Entered) or event.epoch != self.epoch:
            return False
        return enter(self._book, record, reading.address.tenant, event)

    def _skipped(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Skipped) or event.epoch != self.epoch:
            return False
        return skip(self._book, record, reading.address.tenant, event)

    def _fired(self, record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Fired) or event.epoch != self.epoch:
            return False
        return fire(self._book, record, reading.address.tenant, event)

    def _halted(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Halted) or event.epoch != self.epoch:
            return False
        flow = live_flow(self._book, event.task, reading.address.tenant)
        if flow is None or flow.cancel is not None:
            return False
        mark_cancelled(self._book, flow, event.reason)
        return True

    def _budget(self, _record: Record, reading: Reading) -> bool:
        event = reading.event
        if not isinstance(event, Budget) or event.epoch != self.epoch:
            return False
        self._book.budgets.change(event)
        return True

    def _quarantined(self, _record: Record, reading: Reading) -> bool:
        """It changes nothing that the ledger tells."""
        event = reading.event
        return isinstance(event, Quarantined) and event.epoch == self.epoch

    # What several kinds need.

    def _wakes(self, record: Record, reading: Reading) -> bool:
        """Carry out the command that the router has yet to answer, if the event counts by it."""
        book, event, tenant = self._book, reading.event, reading.address.tenant
        if not isinstance(event, WAKING) or event.epoch != self.epoch:
            return False
        command = unanswered(book, event.task, tenant)
        if command is None:
            return False
        trial = Aggregator(self._subjects)
        trial.epoch = self.epoch
        trial._book = apart(book, event.task)
        carry_out(trial._book, copy.copy(command))
        if trial.fold(record, reading) != "accepted":
            return False
        carry_out(book, command)
        return True
