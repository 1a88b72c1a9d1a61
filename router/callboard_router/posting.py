"""What anyone may add to the journal: tasks, schedules and workflows, each refused or taken in.

A post that cannot be read, or for which there is no room, becomes a task that has failed already:
the router settles it, so that its poster hears why. A post that repeats an earlier one's nonce or
key is merged into that one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from callboard_broker.errors import BadInput
from callboard_broker.rule import Life
from callboard_broker.subjects import SHARDS, Address
from callboard_broker.trace import root_of
from callboard_broker.wire import Failure, Parent, Post, decode_flow_run, decode_post
from callboard_router.budget import need_of
from callboard_router.flow import INLINE
from callboard_router.state import Schedule, State, Task
from callboard_router.workflow import begin

__all__ = [
    "KEY_WINDOW_MS",
    "MAX_KEYS",
    "MAX_NONCES",
    "NONCE_WINDOW_MS",
    "is_repeat",
    "refuse",
    "take_flow",
    "take_post",
]

KEY_WINDOW_MS = 24 * 3600 * 1000
NONCE_WINDOW_MS = 60 * 1000
MAX_KEYS = 1_000_000
MAX_NONCES = 1_000_000
_RETRY_HINT_S = 5.0


def take_post(state: State, address: Address, seq: int, data: bytes) -> None:
    """A task or a schedule."""
    try:
        post = decode_post(data)
    except BadInput as error:
        refuse(state, address, seq, seq % SHARDS, _explained(error))
        return
    shard = seq % SHARDS if post.shard is None else post.shard
    post_id = str(seq)
    named = post.key is not None or post.nonce is not None
    if named and _known(state, address.tenant, post.key, post.nonce, (post_id, shard)):
        return
    parent: Task | None = None
    failure: Failure | None = None
    if post.parent is not None:
        parent, failure = _parent(state, address.tenant, post.parent)
    failure = failure or _overload(state, address.tenant)
    task = _task(state, address, seq, shard, post)
    if failure is not None:
        if post.cron is not None:
            # It is no task, so it cannot be run as one, with whatever payload.
            task.capability, task.payload, task.payload_at = "", None, 0
        task.life.failure = failure
        state.add(task)
        return
    if named:
        _remember(state, address.tenant, post.key, post.nonce, post_id)
    if post.cron is not None:
        state.schedules[post_id] = Schedule(
            id=post_id,
            tenant=address.tenant,
            capability=address.rest,
            shard=shard,
            seq=seq,
            since=state.at_ms,
            cron=post.cron,
            template=task,
        )
        state.fresh.append(post_id)
        return
    if parent is not None:
        _adopt(state, parent, task)
    state.add(task)


def _task(state: State, address: Address, seq: int, shard: int, post: Post) -> Task:
    terms = post.plain_terms()
    length = len(post.payload)
    return Task(
        id=str(seq),
        tenant=address.tenant,
        capability=address.rest,
        shard=shard,
        order=seq,
        since=state.at_ms,
        life=Life(),
        need=need_of(address.tenant, address.rest, terms),
        priority=post.priority,
        timeout=post.timeout,
        payload=bytes(post.payload) if length <= INLINE and post.blob is None else None,
        blob=post.blob,
        payload_at=seq,
        terms=terms,
        not_before=0 if post.delay is None else state.at_ms + int(post.delay * 1000),
        trace=post.trace or "",
    )


def _parent(state: State, tenant: str, named: Parent | None) -> tuple[Task | None, Failure | None]:
    """The task that spawns: only its current attempt may."""
    if named is None:
        return None, None
    task = state.tasks.get(named.task)
    current = task is not None and task.tenant == tenant and task.life.state == "running"
    if (
        task is None
        or not current
        or (task.life.attempt, task.life.secret)
        != (
            named.attempt,
            named.secret,
        )
    ):
        why = f"attempt {named.attempt} of {named.task} is not the current one; it may not spawn"
        return None, Failure("Fenced", why, final=True)
    if task.cancel is not None:
        return None, Failure("Cancelled", f"{named.task} is to be cancelled", final=True)
    return task, None


def _adopt(state: State, parent: Task, child: Task) -> None:
    child.parent = parent.id
    child.root = parent.root or root_of(parent.id)
    child.trace = child.trace or parent.trace
    parent.children = [*parent.children, child.id]
    if parent.flow is not None:
        child.flow = parent.flow
        state.flows[parent.flow].open += 1


def _overload(state: State, tenant: str) -> Failure | None:
    """Why no more of this tenant may wait; the post is not even remembered by its key."""
    most = state.accounts.limit_of(tenant).waiting
    if most is None or state.waiting[tenant] < most:
        return None
    return Failure(
        "Overloaded",
        f"{state.waiting[tenant]:,} tasks of tenant {tenant} wait, and {most:,} may: "
        f"post again in {_RETRY_HINT_S:g} s, or raise the budget's `waiting`",
        final=True,
        retry_after=_RETRY_HINT_S,
    )


def take_flow(state: State, address: Address, seq: int, data: bytes) -> None:
    """A workflow."""
    shard = seq % SHARDS
    try:
        run = decode_flow_run(data)
        if run.shard is not None:
            shard = run.shard
        if _known(state, address.tenant, run.key, run.nonce, (str(seq), shard)):
            return
        failure = _overload(state, address.tenant)
        if failure is None:
            begin(state, address.tenant, seq, shard, run)
            _remember(state, address.tenant, run.key, run.nonce, str(seq))
    except BadInput as error:
        failure = _explained(error)
    if failure is not None:
        refuse(state, Address("flow", address.tenant), seq, shard, failure)


def refuse(state: State, address: Address, seq: int, shard: int, failure: Failure) -> None:
    """A task that has failed already; there is no payload with which it could be run again."""
    state.add(
        Task(
            id=str(seq),
            tenant=address.tenant,
            capability=address.rest,
            shard=shard,
            order=seq,
            since=state.at_ms,
            life=Life(failure=failure),
            need=need_of(address.tenant, address.rest, None),
        )
    )


def _explained(error: BadInput) -> Failure:
    return Failure("BadInput", error.reason, field=error.field, final=True)


# -- repeats


def is_repeat(state: State, tenant: str, nonce: str | None, message: tuple[str, int]) -> bool:
    """Whether a command's nonce was seen before; if not, remember it. message: (id, shard)."""
    if _known(state, tenant, None, nonce, message):
        return True
    _remember(state, tenant, None, nonce, message[0])
    return False


def _known(
    state: State, tenant: str, key: str | None, nonce: str | None, message: tuple[str, int]
) -> bool:
    """Whether an earlier post had this nonce or key: then this one is to be merged into it."""
    nonces, keys = state.nonces, state.keys.get(tenant)
    _forget(nonces, state.at_ms, MAX_NONCES)
    if keys is not None:
        _forget(keys, state.at_ms, MAX_KEYS)
        if not keys:
            del state.keys[tenant]
    first = nonces.get((tenant, nonce)) if nonce is not None else None
    if first is None and key is not None and keys is not None:
        first = keys.get(key)
    if first is None:
        return False
    state.merges[message[0]] = (first[0], tenant, message[1])
    state.fresh.append(message[0])
    return True


def _remember(state: State, tenant: str, key: str | None, nonce: str | None, post_id: str) -> None:
    if nonce is not None:
        state.nonces[(tenant, nonce)] = (post_id, state.at_ms + NONCE_WINDOW_MS)
    if key is not None:
        state.keys.setdefault(tenant, OrderedDict())[key] = (post_id, state.at_ms + KEY_WINDOW_MS)


def _forget(known: OrderedDict[Any, tuple[str, int]], now_ms: int, most: int) -> None:
    """Drop what has expired; entries expire in the order in which they came."""
    while known:
        oldest = next(iter(known))
        if known[oldest][1] > now_ms and len(known) < most:
            return
        del known[oldest]
