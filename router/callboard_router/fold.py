"""`apply(state, ...)`: the fold of the journal, pure and total.

It reads no clock, no setting and no observation, so the same prefix of the journal gives the same
state in every process. What it cannot read, and what comes too late or from a router whose epoch
is over, is void: it is counted and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.rule import (
    apply_checkpoint,
    apply_dispatch,
    apply_lost,
    apply_outcome,
    apply_retrying,
    apply_settled,
)
from callboard_broker.subjects import Address, Subjects
from callboard_broker.wire import (
    Answered,
    Budget,
    Checkpoint,
    Dispatch,
    Entered,
    Epoch,
    Event,
    Expanded,
    Fired,
    Halted,
    Lost,
    Merged,
    Outcome,
    Quarantined,
    Retrying,
    Settled,
    Skipped,
    decode_event,
)
from callboard_router.commands import take_command
from callboard_router.ending import finish, settle_flow, settle_schedule
from callboard_router.flow import INLINE, Result
from callboard_router.posting import take_flow, take_post
from callboard_router.schedules import fire
from callboard_router.state import State, Task
from callboard_router.stopping import halt
from callboard_router.workflow import enter, expand, skip

__all__ = ["apply"]

_MAX_VOID = 8


def apply(
    state: State, subjects: Subjects, seq: int, at_ms: int, message: tuple[str, bytes]
) -> tuple[Event | None, bool]:
    """Fold the message (subject, data), stored at `seq` and at the time `at_ms`, into `state`.

    The windows of keys and nonces are constants of the fold and no settings: a setting would let
    two routers read one journal differently. Returns the event of a router or host, if it was
    one that can be read, and whether it counted.
    """
    subject, data = message
    state.seq = seq
    if at_ms > state.at_ms:  # noqa: PLR1730 - max() takes three times as long, for every message
        state.at_ms = at_ms
    address = subjects.parse(subject)
    kind = address.kind
    if kind == "post":
        take_post(state, address, seq, data)
    elif kind == "flow":
        if address.rest == "run":
            take_flow(state, address, seq, data)
        else:
            take_command(state, address, seq, data)
    elif kind == "malformed":
        _unreadable(state, seq, address.reason)
    else:
        return _event(state, address, seq, data)
    return None, True


def _unreadable(state: State, seq: int, reason: str) -> None:
    state.unreadable[seq] = reason
    state.fresh.append(f"!{seq}")


def _event(state: State, address: Address, seq: int, data: bytes) -> tuple[Event | None, bool]:
    try:
        event = decode_event(address.kind, data)
    except BadInput as error:
        _unreadable(state, seq, str(error))
        if address.kind != "epoch":
            return None, False
        event = Epoch("", 0)  # nobody's; but the server's guard names this message from here on
    counted = _FOLDS[type(event)](state, address, seq, event)
    if not counted:
        state.void += 1
    return event, counted


def _epoch(state: State, _address: Address, seq: int, event: Epoch) -> bool:
    state.epoch = seq
    state.router = event.router
    if event.snapshot is not None:
        state.snapshot = event.snapshot
    return True


def _dispatch(state: State, address: Address, _seq: int, event: Dispatch) -> bool:
    if event.epoch != state.epoch or address.box != (event.host or ""):
        return False
    task = _task(state, address, event.task)
    if task is None or not apply_dispatch(task.life, event):
        return False
    if address.box:
        task.queue = (event.pool, event.capability)
        task.host = address.box
        state.boxes[address.box] += 1
    else:
        task.queue = (address.pool, address.rest)
    state.stop_waiting(task.tenant)
    state.accounts.take(task.need, state.at_ms)
    state.running[task.queue] += 1
    return True


def _outcome(state: State, address: Address, seq: int, event: Outcome) -> bool:
    task = _task(state, address, event.task)
    if task is None:
        return False
    if not apply_outcome(task.life, event):
        _late_cost(state, task, event)
        return False
    task.ran_on = event.host
    _release(state, task, event.used)
    if task.life.state == "succeeded":
        value = bytes(event.result) if isinstance(event.result, msgspec.Raw) else b"null"
        short = len(value) <= INLINE and event.blob is None
        result = Result(seq, value if short else None, event.blob, event.attempt, event.host)
        finish(state, task, result)
    else:
        state.waiting[task.tenant] += 1
        state.fresh.append(task.id)
    return True


def _checkpoint(state: State, address: Address, seq: int, event: Checkpoint) -> bool:
    task = _task(state, address, event.task)
    if task is None or not apply_checkpoint(task.life, event):
        return False
    value = bytes(event.value) if isinstance(event.value, msgspec.Raw) else b"null"
    short = len(value) <= INLINE and event.blob is None
    task.checkpoint = Result(seq, value if short else None, None, event.attempt, event.host)
    return True


def _late_cost(state: State, task: Task, event: Outcome) -> None:
    """What a lost attempt has used counts all the same, once, on the proof of its secret."""
    if event.used and task.void.get(event.attempt) == event.secret:
        del task.void[event.attempt]
        state.accounts.correct(task.need, event.used)


def _lost(state: State, address: Address, _seq: int, event: Lost) -> bool:
    task = _task(state, address, event.task)
    if task is None or event.epoch != state.epoch:
        return False
    secret = task.life.secret
    if not apply_lost(task.life, event):
        return False
    if task.need.units:
        task.void = {**dict(list(task.void.items())[1 - _MAX_VOID :]), event.attempt: secret}
    _release(state, task, None)
    state.waiting[task.tenant] += 1
    state.fresh.append(task.id)
    return True


def _release(state: State, task: Task, used: dict[str, float] | None) -> None:
    state.accounts.give_back(task.need, used, state.at_ms)
    queue = task.queue
    left = state.running[queue] - 1
    if left:
        state.running[queue] = left
    else:
        del state.running[queue]
    if task.host is not None:
        state.boxes[task.host] -= 1
        if not state.boxes[task.host]:
            del state.boxes[task.host]
        task.host = None
    task.queue = ("", "")


def _retrying(state: State, address: Address, _seq: int, event: Retrying) -> bool:
    task = _task(state, address, event.task)
    if task is None or event.epoch != state.epoch or not apply_retrying(task.life, event):
        return False
    task.not_before = event.at
    task.avoid = event.avoid
    state.fresh.append(task.id)
    return True


def _settled(state: State, address: Address, seq: int, event: Settled) -> bool:
    if event.epoch != state.epoch:
        return False
    flow = state.flows.get(event.task)
    if flow is not None and flow.tenant == address.tenant and not flow.open:
        settle_flow(state, flow, seq, event)
        return True
    schedule = state.schedules.get(event.task)
    if schedule is not None and schedule.tenant == address.tenant:
        settle_schedule(state, schedule, event)
        return True
    task = _task(state, address, event.task)
    if task is None or not apply_settled(task.life, event):
        return False
    state.stop_waiting(task.tenant)
    result = None
    if event.state == "succeeded":
        value = bytes(event.result) if isinstance(event.result, msgspec.Raw) else b"null"
        short = len(value) <= INLINE and event.blob is None
        result = Result(seq, value if short else None, event.blob)
    finish(state, task, result)
    return True


def _merged(state: State, _address: Address, _seq: int, event: Merged) -> bool:
    if event.epoch != state.epoch:
        return False
    return state.merges.pop(event.task, None) is not None


def _answered(state: State, _address: Address, _seq: int, event: Answered) -> bool:
    if event.epoch != state.epoch:
        return False
    return state.answers.pop(event.task, None) is not None


def _expanded(state: State, address: Address, _seq: int, event: Expanded) -> bool:
    flow = state.flows.get(event.task)
    if event.epoch != state.epoch or flow is None or flow.tenant != address.tenant:
        return False
    return expand(state, flow, event)


def _entered(state: State, address: Address, seq: int, event: Entered) -> bool:
    task = _waiting_step(state, address, event.epoch, event.task)
    return task is not None and enter(state, task, seq, event)


def _skipped(state: State, address: Address, _seq: int, event: Skipped) -> bool:
    task = _waiting_step(state, address, event.epoch, event.task)
    if task is None or task.flow is None:
        return False
    state.remove(task)
    skip(state, state.flows[task.flow], task, event.reason)
    return True


def _waiting_step(state: State, address: Address, epoch: int, name: str) -> Task | None:
    task = _task(state, address, name)
    if task is None or epoch != state.epoch or not task.step or task.life.state != "waiting":
        return None
    return task


def _fired(state: State, address: Address, _seq: int, event: Fired) -> bool:
    schedule = state.schedules.get(event.task)
    if schedule is None or event.epoch != state.epoch or schedule.tenant != address.tenant:
        return False
    return fire(state, schedule, event)


def _halted(state: State, address: Address, _seq: int, event: Halted) -> bool:
    flow = state.flows.get(event.task)
    if flow is None or event.epoch != state.epoch or flow.tenant != address.tenant:
        return False
    if flow.ending is not None:
        return False
    halt(state, flow, event.state, event.reason)
    return True


def _budget(state: State, _address: Address, _seq: int, event: Budget) -> bool:
    if event.epoch != state.epoch:
        return False
    state.accounts.change(event, state.at_ms)
    return True


def _quarantined(state: State, _address: Address, _seq: int, event: Quarantined) -> bool:
    if event.epoch != state.epoch:
        return False
    return state.unreadable.pop(event.seq, None) is not None


def _task(state: State, address: Address, task_id: str) -> Task | None:
    """The live task, if the event's subject is of the task's own tenant."""
    task = state.tasks.get(task_id)
    return task if task is not None and task.tenant == address.tenant else None


_FOLDS: dict[type, Callable[[State, Address, int, Any], bool]] = {
    Epoch: _epoch,
    Dispatch: _dispatch,
    Outcome: _outcome,
    Checkpoint: _checkpoint,
    Lost: _lost,
    Retrying: _retrying,
    Settled: _settled,
    Merged: _merged,
    Answered: _answered,
    Expanded: _expanded,
    Entered: _entered,
    Skipped: _skipped,
    Fired: _fired,
    Halted: _halted,
    Budget: _budget,
    Quarantined: _quarantined,
}
