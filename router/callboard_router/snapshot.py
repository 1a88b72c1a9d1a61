"""A snapshot: the state after some sequence as bytes, the same in every process.

What is a mapping by name is written sorted by name; what is a queue (dead letters, keys) in its
order, which is part of the state. `floor` says which messages of the journal a state still refers
to, so that they are not purged. A process of its own writes it down (`forked`): the
router only forks, and goes on deciding.
"""

from __future__ import annotations

import gc
import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from callboard_broker.wire import Snapshot
from callboard_router.flow import Flow, Result, plain_flow, restore_flow
from callboard_router.joining import recount
from callboard_router.state import FOLD_VERSION, Answer, Schedule, State, Task
from callboard_router.tally import Tally

__all__ = ["Picture", "SnapshotBroken", "compressed", "digest", "dump", "expand", "floor", "load"]

_MAX_BYTES = 4 * 1024 * 1024 * 1024
_LEVEL = 1  # of zlib: a third of the size; more takes longer and gains little

Remembered = tuple[str, int]


class SnapshotBroken(ValueError):
    """A snapshot is not what its event says: the state is folded from the journal instead."""


class Picture(msgspec.Struct, frozen=True):
    """A state written down. floor: the oldest sequence that it refers to. body: compressed."""

    seq: int
    floor: int
    digest: str
    body: bytes


class _Dump(msgspec.Struct, array_like=True):
    """Every field of `State` but `fresh`, which is no part of it."""

    fold: int
    seq: int
    at_ms: int
    epoch: int
    router: str
    snapshot: Snapshot | None
    void: int
    accounts: Any
    tasks: list[Task]
    flows: list[Any]
    schedules: list[Schedule]
    running: list[tuple[tuple[str, str], int]]
    boxes: list[tuple[str, int]]
    waiting: list[tuple[str, int]]
    dead: list[tuple[int, Task]]
    dead_flows: list[tuple[int, Any]]
    nonces: list[tuple[tuple[str, str], Remembered]]
    keys: list[tuple[str, list[tuple[str, Remembered]]]]
    merges: list[tuple[str, tuple[str, str, int]]]
    answers: list[tuple[str, Answer]]
    to_expand: list[tuple[str, str]]
    unreadable: list[tuple[int, str]]
    finished: list[tuple[str, int]]


_encoder = msgspec.msgpack.Encoder()  # mappings inside are written in the order of the events
_decoder = msgspec.msgpack.Decoder(_Dump)


def dump(state: State) -> bytes:
    """The state as bytes. A hundred thousand live tasks take about a second."""
    found = _Dump(
        fold=FOLD_VERSION,
        seq=state.seq,
        at_ms=state.at_ms,
        epoch=state.epoch,
        router=state.router,
        snapshot=state.snapshot,
        void=state.void,
        accounts=state.accounts.dump(),
        tasks=[task for _, task in sorted(state.tasks.items(), key=_name)],
        flows=[plain_flow(flow) for _, flow in sorted(state.flows.items(), key=_name)],
        schedules=[schedule for _, schedule in sorted(state.schedules.items(), key=_name)],
        running=sorted(state.running.items()),
        boxes=sorted(state.boxes.items()),
        waiting=sorted(state.waiting.items()),
        dead=list(state.dead.values()),
        dead_flows=[(at_ms, plain_flow(flow)) for at_ms, flow in state.dead_flows.values()],
        nonces=list(state.nonces.items()),
        keys=[(tenant, list(known.items())) for tenant, known in sorted(state.keys.items())],
        merges=sorted(state.merges.items()),
        answers=sorted(state.answers.items(), key=_name),
        to_expand=sorted(state.to_expand),
        unreadable=sorted(state.unreadable.items()),
        finished=sorted(state.finished.items()),
    )
    return _encoder.encode(found)


def load(data: bytes) -> State:
    """The state that `dump` wrote. Raises `SnapshotBroken` for anything else."""
    collecting = gc.isenabled()
    gc.disable()  # a million new objects and no garbage: it would take most of the time
    try:
        return _load(data)
    finally:
        if collecting:
            gc.enable()


def _load(data: bytes) -> State:
    try:
        found = _decoder.decode(data)
        if found.fold != FOLD_VERSION:
            raise SnapshotBroken(f"written by fold {found.fold}, this is fold {FOLD_VERSION}")
        state = State(
            seq=found.seq,
            at_ms=found.at_ms,
            epoch=found.epoch,
            router=found.router,
            snapshot=found.snapshot,
            void=found.void,
            schedules={schedule.id: schedule for schedule in found.schedules},
            flows={flow.id: flow for flow in map(restore_flow, found.flows)},
            running=Tally(dict(found.running)),
            boxes=Tally(dict(found.boxes)),
            waiting=Tally(dict(found.waiting)),
            nonces=OrderedDict(found.nonces),
            keys={tenant: OrderedDict(known) for tenant, known in found.keys},
            merges=dict(found.merges),
            answers=dict(found.answers),
            to_expand=dict.fromkeys(found.to_expand),
            unreadable=dict(found.unreadable),
            finished=Tally(dict(found.finished)),
        )
        state.accounts.load(found.accounts)
        buried = [(at_ms, restore_flow(plain)) for at_ms, plain in found.dead_flows]
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        raise SnapshotBroken(f"it cannot be read: {error}") from error
    needs: dict[Any, Any] = {}
    for task in found.tasks:
        task.need = needs.setdefault(task.need, task.need)  # one object for many, as it was
        state.tasks[task.id] = task
    state.dead = OrderedDict((task.id, (at_ms, task)) for at_ms, task in found.dead)
    state.dead_flows = OrderedDict((flow.id, (at_ms, flow)) for at_ms, flow in buried)
    for flow in _every_flow(state):
        recount(flow)
    return state


def digest(state: State) -> str:
    """SHA-256 of the dump, hex: equal for equal states, in every process."""
    return hashlib.sha256(dump(state)).hexdigest()


def compressed(state: State) -> bytes:
    """A `Picture` of the state, packed."""
    data = dump(state)
    picture = Picture(
        seq=state.seq,
        floor=floor(state),
        digest=hashlib.sha256(data).hexdigest(),
        body=zlib.compress(data, _LEVEL),
    )
    return msgspec.msgpack.encode(picture)


def expand(body: bytes, expected: str) -> State:
    """The state in a picture's body. Raises `SnapshotBroken` if its digest is not `expected`."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(body, _MAX_BYTES)
    except zlib.error as error:
        raise SnapshotBroken(f"it cannot be unpacked: {error}") from error
    if not unpacker.eof or hashlib.sha256(data).hexdigest() != expected:
        raise SnapshotBroken("its content has another digest")
    return load(data)


def floor(state: State) -> int:
    """The oldest message of the journal that is still read, if only perhaps."""
    return min(_references(state), default=state.seq + 1)


def _references(state: State) -> Iterator[int]:
    buried = (task for _, task in state.dead.values())
    templates = (schedule.template for schedule in state.schedules.values())
    for tasks in (state.tasks.values(), buried, templates):
        yield from _of_tasks(tasks)
    for flow in _every_flow(state):
        yield from _of_results([*flow.inputs, *flow.signals.values()])
        for step in flow.steps.values():
            yield from _of_results(step.results.values())
    yield from state.unreadable


def _of_tasks(tasks: Iterable[Task]) -> Iterator[int]:
    for task in tasks:
        if task.blob is None and task.payload_at:
            yield task.payload_at  # also of a short one: should it die, it is read from there
        yield from _of_results(
            found for found in (task.decided, task.checkpoint) if found is not None
        )


def _of_results(results: Iterable[Result]) -> Iterator[int]:
    for result in results:
        if result.value is None and result.blob is None:
            yield result.seq


def _every_flow(state: State) -> Iterator[Flow]:
    """Live and buried ones, and the inner ones that sleep in their steps."""
    left = [*state.flows.values(), *(flow for _, flow in state.dead_flows.values())]
    while left:
        flow = left.pop()
        yield flow
        for step in flow.steps.values():
            left.extend(step.asleep.values())


def _name(entry: tuple[str, Any]) -> str:
    return entry[0]
