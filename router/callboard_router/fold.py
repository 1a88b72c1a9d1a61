"""`apply(state, ...)`: the fold of the journal, pure and total.

It reads no clock, no setting and no observation, so the same prefix of the journal gives the same
state in every process. What it cannot read, and what comes too late or from a router whose epoch
is over, is void: it is counted and changes nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.rule import (
    TERMINAL,
    Life,
    apply_dispatch,
    apply_lost,
    apply_outcome,
    apply_settled,
)
from callboard_broker.subjects import SHARDS, Address, Subjects
from callboard_broker.wire import (
    Budget,
    Dispatch,
    Epoch,
    Event,
    Expanded,
    Failure,
    Lost,
    Merged,
    Outcome,
    Quarantined,
    Settled,
    decode_event,
    decode_flow_run,
    decode_post,
)
from callboard_router import budget
from callboard_router.state import INLINE, Result, State, Task
from callboard_router.workflow import begin, expand, finish_step, step_failed

__all__ = ["KEY_WINDOW_MS", "MAX_KEYS", "MAX_NONCES", "NONCE_WINDOW_MS", "apply"]

KEY_WINDOW_MS = 24 * 3600 * 1000
NONCE_WINDOW_MS = 60 * 1000
MAX_KEYS = 1_000_000
MAX_NONCES = 1_000_000


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
    state.at_ms = max(state.at_ms, at_ms)
    address = subjects.parse(subject)
    if address.kind == "post":
        _post(state, address, seq, data)
    elif address.kind == "flow":
        _flow(state, address, seq, data)
    elif address.kind == "malformed":
        state.unreadable[seq] = address.reason
    else:
        return _event(state, address, seq, data)
    return None, True


def _post(state: State, address: Address, seq: int, data: bytes) -> None:
    task_id = str(seq)
    try:
        post = decode_post(data)
    except BadInput as error:
        refused = Task(
            id=task_id,
            tenant=address.tenant,
            capability=address.rest,
            shard=seq % SHARDS,
            order=seq,
            life=Life(failure=Failure("BadInput", error.reason, field=error.field)),
        )
        _add(state, refused)
        return
    shard = seq % SHARDS if post.shard is None else post.shard
    if _is_repeat(state, address.tenant, post.key, post.nonce, (task_id, shard)):
        return
    payload = bytes(post.payload) if len(post.payload) <= INLINE else None
    _add(
        state,
        Task(
            id=task_id,
            tenant=address.tenant,
            capability=address.rest,
            shard=shard,
            order=seq,
            priority=post.priority,
            timeout=post.timeout,
            payload=payload if post.blob is None else None,
            blob=post.blob,
            life=Life(),
        ),
    )


def _flow(state: State, address: Address, seq: int, data: bytes) -> None:
    flow_id = str(seq)
    try:
        if address.rest != "run":
            raise BadInput("verb", f"{address.rest!r} is not a command of this version; use run")
        run = decode_flow_run(data)
        shard = seq % SHARDS if run.shard is None else run.shard
        if _is_repeat(state, address.tenant, run.key, run.nonce, (flow_id, shard)):
            return
        begin(state, address.tenant, seq, shard, run)
    except BadInput as error:
        refused = Task(
            id=flow_id,
            tenant=address.tenant,
            capability="",
            shard=seq % SHARDS,
            order=seq,
            life=Life(failure=Failure("BadInput", error.reason, field=error.field)),
        )
        _add(state, refused)


def _add(state: State, task: Task) -> None:
    state.tasks[task.id] = task
    state.fresh.append(task.id)


def _is_repeat(
    state: State, tenant: str, key: str | None, nonce: str | None, post: tuple[str, int]
) -> bool:
    """Whether an earlier post had this nonce or key; if not, remember it under both."""
    task_id, shard = post
    nonces, keys = state.nonces, state.keys.get(tenant)
    _forget(nonces, state.at_ms, MAX_NONCES)
    if keys is not None:
        _forget(keys, state.at_ms, MAX_KEYS)
    first = nonces.get((tenant, nonce)) if nonce is not None else None
    if first is None and key is not None and keys is not None:
        first = keys.get(key)
    if first is not None:
        state.merges[task_id] = (first[0], tenant, shard)
        state.fresh.append(task_id)
        return True
    if nonce is not None:
        nonces[(tenant, nonce)] = (task_id, state.at_ms + NONCE_WINDOW_MS)
    if key is not None:
        state.keys.setdefault(tenant, OrderedDict())[key] = (task_id, state.at_ms + KEY_WINDOW_MS)
    return False


def _forget(known: OrderedDict[Any, tuple[str, int]], now_ms: int, most: int) -> None:
    """Drop what has expired; entries expire in the order in which they came."""
    while known:
        oldest = next(iter(known))
        if known[oldest][1] > now_ms and len(known) < most:
            return
        del known[oldest]


def _event(state: State, address: Address, seq: int, data: bytes) -> tuple[Event | None, bool]:
    try:
        event = decode_event(address.kind, data)
    except BadInput as error:
        state.unreadable[seq] = str(error)
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
    return True


def _dispatch(state: State, address: Address, _seq: int, event: Dispatch) -> bool:
    task = _task(state, address, event.task)
    if task is None or event.epoch != state.epoch or not apply_dispatch(task.life, event):
        return False
    task.queue = (address.pool, address.rest)
    budget.take(state, task)
    state.running[task.queue] += 1
    return True


def _outcome(state: State, address: Address, seq: int, event: Outcome) -> bool:
    task = _task(state, address, event.task)
    if task is None or not apply_outcome(task.life, event):
        return False
    _release(state, task)
    if task.life.state == "succeeded":
        value = bytes(event.result) if isinstance(event.result, msgspec.Raw) else b"null"
        short = len(value) <= INLINE and event.blob is None
        result = Result(seq=seq, value=value if short else None, blob=event.blob)
        _finish(state, task, result)
    else:
        state.fresh.append(task.id)
    return True


def _lost(state: State, address: Address, _seq: int, event: Lost) -> bool:
    task = _task(state, address, event.task)
    if task is None or event.epoch != state.epoch or not apply_lost(task.life, event):
        return False
    _release(state, task)
    state.fresh.append(task.id)
    return True


def _release(state: State, task: Task) -> None:
    budget.give_back(state, task)
    state.running[task.queue] -= 1
    task.queue = ("", "")


def _settled(state: State, address: Address, _seq: int, event: Settled) -> bool:
    if event.epoch != state.epoch:
        return False
    flow = state.flows.get(event.task)
    if flow is not None and flow.tenant == address.tenant and not flow.open:
        del state.flows[flow.id]
        state.finished[f"flow/{event.state}"] += 1
        state.fresh.append(flow.id)
        return True
    task = _task(state, address, event.task)
    if task is None or not apply_settled(task.life, event):
        return False
    _finish(state, task, None)
    return True


def _finish(state: State, task: Task, result: Result | None) -> None:
    """The task reached its terminal event: it leaves, and its workflow goes on."""
    if task.life.state not in TERMINAL:
        raise AssertionError(task.life.state)
    del state.tasks[task.id]
    state.finished[task.life.state] += 1
    if task.flow is None:
        return
    flow = state.flows[task.flow]
    if result is not None:
        finish_step(state, flow, task, result)
    else:
        step_failed(state, flow, task)


def _merged(state: State, _address: Address, _seq: int, event: Merged) -> bool:
    if event.epoch != state.epoch:
        return False
    return state.merges.pop(event.task, None) is not None


def _expanded(state: State, address: Address, _seq: int, event: Expanded) -> bool:
    flow = state.flows.get(event.task)
    if event.epoch != state.epoch or flow is None or flow.tenant != address.tenant:
        return False
    return expand(state, flow, event)


def _budget(state: State, _address: Address, _seq: int, event: Budget) -> bool:
    if event.epoch != state.epoch:
        return False
    state.limits = dict(event.concurrency)
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
    Lost: _lost,
    Settled: _settled,
    Merged: _merged,
    Expanded: _expanded,
    Budget: _budget,
    Quarantined: _quarantined,
}
