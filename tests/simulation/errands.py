"""What a router in the simulation does beside deciding: values, durables, snapshots, budgets.

Each is a request to the server that may fail, and is then tried again or left to a new epoch.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

import msgspec

from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    BlobRef,
    Dispatch,
    Entered,
    Failure,
    Limit,
    Outcome,
    Quota,
    Settled,
    Snapshot,
    decode_command,
    decode_event,
    decode_flow_run,
    decode_post,
)
from callboard_router.filling import Source
from callboard_router.proposals import Proposal
from callboard_router.snapshot import Picture, compressed
from callboard_router.state import FOLD_VERSION
from tests.simulation.server import Stored

if TYPE_CHECKING:
    from tests.simulation.router import Router

__all__ = ["Errands", "draw_budgets"]

_AGAIN = 0.1
_SUBJECTS = Subjects()


class Errands:
    """The errands of one router's life."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._creating: set[tuple[str, str]] = set()
        self._floor: tuple[Snapshot, int] | None = None
        self._resetting = False

    def attach(self, proposal: Proposal, payload: bytes) -> None:
        """A payload too long for the event goes to the blob store first."""
        router, event = self._router, proposal.event
        if not isinstance(event, Dispatch | Settled | Entered):
            raise TypeError(event)
        blob = _blob(payload)
        data = msgspec.json.encode(msgspec.structs.replace(event, blob=blob))

        def put(name: str | None, _error: object) -> None:
            if name is None:
                router.engine.unresolved(router.mono)
            else:
                router.step("router.write", router.write, proposal, data)

        router.link.request("put_blob", blob.name, payload, done=put, timeout=5.0)

    def fetch(self, source: Source) -> None:
        """A value that a decision waits for."""
        router = self._router

        def got(found: Any, _error: object) -> None:
            if found is None:
                router.engine.desk.agenda.wanted[source] = None
                router.after(_AGAIN, "", router.wake_up)
                return
            try:
                value = found if isinstance(found, bytes) else _stands_in(found)
                if isinstance(value, BlobRef):
                    get = router.link.request
                    get("get_blob", value.name, done=got, step="router.fetched", timeout=5.0)
                    return
                decoded = msgspec.json.decode(value)
            except (LookupError, ValueError) as error:
                decoded = Failure(type(error).__name__, str(error))
            router.engine.fetched(source, decoded)
            router.wake_up()

        verb, key = ("get_blob", source.blob.name) if source.blob else ("get", source.seq)
        router.link.request(verb, key, done=got, step="router.fetched", timeout=5.0)

    def tick(self) -> None:
        """The leader looks after durables, stop requests, snapshots and wishes."""
        router = self._router
        for queue in router.engine.missing_queues():
            if queue not in self._creating:
                self._creating.add(queue)
                self._create(queue)
        for pool, attempts, why in router.engine.stops(router.mono):
            router.step("router.stop", router.link.send, "stop", pool, attempts, why)
        rng = router.world.rng
        if not router.world.faults.active:
            self._reset_budgets()
        elif rng.random() < 0.01:
            router.engine.set_budgets(draw_budgets(router.world.rng), "someone", lambda _ok: None)
        if rng.random() < router.snapshot_odds:
            self._take_snapshot()
        if self._floor is not None and router.engine.state.snapshot == self._floor[0]:
            router.link.send("purge", min(self._floor[1], self._floor[0].seq))
            self._floor = None

    def _reset_budgets(self) -> None:
        """Whatever was set in between is taken back, or tasks might wait for ever."""
        engine = self._router.engine
        changed = engine.state.accounts.changed
        if changed and not self._resetting:
            self._resetting = True

            def done(_in_force: bool) -> None:  # noqa: FBT001  the engine's signature
                self._resetting = False

            engine.set_budgets(dict.fromkeys(changed), "someone", done)

    def _create(self, queue: tuple[str, str]) -> None:
        router = self._router

        def made(seq: int | None, _error: object) -> None:
            self._creating.discard(queue)
            if seq is not None:
                router.engine.queue_is_ready(queue)
                router.wake_up()

        router.link.request("durable", queue, done=made, step="router.durable", timeout=5.0)

    def _take_snapshot(self) -> None:
        """The picture is of this moment; storing and naming it takes a while."""
        router = self._router
        picture = msgspec.msgpack.decode(compressed(router.engine.state), type=Picture)
        blob = _blob(picture.body)
        taken = Snapshot(picture.seq, FOLD_VERSION, picture.digest, blob)

        def put(name: str | None, _error: object) -> None:
            if name is not None and router.leads:
                router.engine.snapshot_taken(taken, router.mono)
                self._floor = (taken, picture.floor)

        ask = router.link.request
        ask("put_blob", blob.name, picture.body, done=put, step="router.snapshot", timeout=5.0)


def _blob(data: bytes) -> BlobRef:
    digest = hashlib.sha256(data).hexdigest()
    return BlobRef(name=digest, size=len(data), digest=digest)


def _stands_in(record: Stored) -> msgspec.Raw | BlobRef:
    """The value in a message of the journal."""
    address = _SUBJECTS.parse(record.subject)
    found: Any = msgspec.UNSET
    if address.kind == "post":
        found = decode_post(record.data).payload
    elif address.kind == "flow":
        run = address.rest == "run"
        data = record.data
        found = decode_flow_run(data).inputs if run else decode_command(data).payload
    else:
        event = decode_event(address.kind, record.data)
        if isinstance(event, Outcome | Settled | Entered) and event.blob is not None:
            return event.blob
        if isinstance(event, Outcome | Settled):
            found = event.result
        elif isinstance(event, Entered):
            found = event.inputs
    if not isinstance(found, msgspec.Raw):
        raise LookupError(record.seq)  # noqa: TRY004  not a type: a value that is absent
    return found


def draw_budgets(rng: random.Random) -> dict[str, Limit | None]:
    """What somebody changes on the running board."""
    key = rng.choice(
        (
            "global",
            "tenant",
            "tenant/acme",
            "tenant/blue",
            "capability/plan",
            "key/openai",
            "tenant/acme/work",
            "key/gpu",
        )
    )
    choice = rng.random()
    if choice < 0.2:
        return {key: None}
    if choice < 0.6:
        return {key: Limit(concurrency=rng.randint(0, 5))}
    if choice < 0.75:
        return {key: Limit(rate=rng.choice((1.0, 4.0, 20.0)), burst=rng.choice((1.0, 3.0)))}
    if choice < 0.9:
        return {key: Limit(units={"tokens": Quota(rng.choice((50.0, 200.0)), 10.0)})}
    return {key: Limit(weight=rng.choice((0.5, 3.0)), guaranteed=rng.randint(0, 2))}
