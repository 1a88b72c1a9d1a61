"""A router in the simulation: the real `Engine`, in a shell that does what `shell.py` does."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Beat,
    BlobRef,
    Dispatch,
    Failure,
    Outcome,
    Settled,
    decode_beat,
    decode_event,
    decode_flow_run,
    encode,
)
from callboard_router.decide import Policy
from callboard_router.engine import ROUTERS, Engine
from callboard_router.filling import Source
from callboard_router.liveness import Claim
from callboard_router.proposals import Proposal
from callboard_router.tenure import Role
from tests.simulation.network import Link
from tests.simulation.server import Refused, Server, Stored
from tests.simulation.world import EPOCH_MS, Process, Violation, World

__all__ = ["Router"]

_TICK = 0.1
_BEAT = 0.5
_DIGEST_EVERY = 8


class Router(Process):
    """One router process.

    policies: one is chosen at each start. digests: of the state at some sequences, shared by all
    routers of a world. guarded: whether its writes name the epoch (a planted defect takes it away).
    """

    guarded = True

    def __init__(
        self,
        world: World,
        server: Server,
        name: str,
        policies: list[Policy],
        digests: dict[int, str],
    ) -> None:
        super().__init__(world, name)
        self._server = server
        self._policies = policies
        self._digests = digests
        self._starts = 0

    def begin(self) -> None:
        self._starts += 1
        self._policy = self.world.rng.choice(self._policies)
        self.engine = Engine(
            f"{self.name}-{self._starts}", Subjects(), self._policy, secret=self._secret
        )
        self._known_seq: int | None = None
        self._ahead_ms = self._heard_to = 0
        self._first = True
        self._until = 0
        self._scheduled = False
        self._creating: set[tuple[str, str]] = set()
        self._asking: list[tuple[int, int, dict[str, Any]]] = []
        self._link = Link(self, self._server, made=self._made, step="router.connect")

    def ended(self) -> None:
        self._link.close()

    def cut(self, seconds: float | None = None) -> None:
        self._link.cut(seconds)

    def _secret(self) -> str:
        return f"{self.world.rng.getrandbits(32):08x}"

    @property
    def _server_ms(self) -> int:
        return int(self.mono * 1000) + self._ahead_ms

    def _saw(self, at_ms: int) -> None:
        self._ahead_ms = max(self._ahead_ms, at_ms - int(self.mono * 1000))

    # -- the connection

    def _made(self) -> None:
        self._link.send("serve", self._asked)
        if not self._first:
            self._known_seq = None
            self.engine.reconnected(self.mono)
        else:
            self._ahead_ms = EPOCH_MS - int(self._zero * 1000) - 5
        self._learn()

    def _learn(self) -> None:
        self._link.request("last", done=self._learned, timeout=5.0)

    def _learned(self, last: int | None, _error: object) -> None:
        if last is None:
            if self._link.connected:
                self._learn()
            return
        self._known_seq = last
        self._link.send("hear", self._heard_to, self._hear)
        self._link.send("read", self.engine.state.seq + 1, self._read)
        if self._first:
            self._first = False
            self._until = last
            self._beat(self.life)
            self._begin_if_read()

    def _begin_if_read(self) -> None:
        if not self.engine.tenure.caught_up and self.engine.state.seq >= self._until:
            self.engine.tenure.start(self.mono)
            self.after(_TICK, "router.tick", self._tick)

    # -- what comes in

    def _read(self, records: list[Stored]) -> None:
        self.step("router.read", self._fold, records)

    def _fold(self, records: list[Stored]) -> None:
        engine = self.engine
        for record in records:
            if record.seq <= engine.state.seq:
                continue
            self._saw(record.at_ms)
            engine.record(*record, now=self.mono)
            if record.seq % _DIGEST_EVERY == 0:
                digest = engine.state.digest()
                if self._digests.setdefault(record.seq, digest) != digest:
                    raise Violation("I4", f"{self.name} has another state at {record.seq}")
        self._begin_if_read()
        self._wake_up()
        for key, until, question in list(self._asking):
            if engine.state.seq >= until:
                self._asking.remove((key, until, question))
                self._reply(key, until, question)

    def _hear(self, records: list[Stored]) -> None:
        self.step("router.heard", self._heard, records)

    def _heard(self, records: list[Stored]) -> None:
        for record in records:
            self._heard_to = record.seq
            self._saw(record.at_ms)
            age = max(0, self._server_ms - record.at_ms) / 1000
            self.engine.heard(decode_beat(record.data), at=self.mono - age)
        self._wake_up()

    def _asked(self, key: int, question: dict[str, Any]) -> None:
        self.step("router.asked", self._look_up, key, question)

    def _look_up(self, key: int, question: dict[str, Any]) -> None:
        if self.engine.tenure.role is not Role.LEADER:
            return

        def found(last: int | None, _error: object) -> None:
            if last is None:
                return
            if self.engine.state.seq >= last:
                self._reply(key, last, question)
            else:
                self._asking.append((key, last, question))

        self._link.request("last", done=found, timeout=5.0)

    def _reply(self, key: int, last: int, question: dict[str, Any]) -> None:
        claim = Claim(**{name: question[name] for name in Claim.__slots__})
        known = last if self._known_seq is None else self._known_seq
        word = self.engine.confirm(claim, question["secret"], known, self.mono)
        self.world.note(self.name, "answers", question, word)
        if word is not None:
            answer = {"go": word.go, "wait": word.wait, "why": word.why}
            self.step("router.answer", self._link.send, "reply", key, answer)

    # -- what goes out

    def _wake_up(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.after(0, "router.decide", self._decide)

    def _decide(self, *, timers: bool = False) -> None:
        self._scheduled = False
        role = self.engine.tenure.role
        for proposal in self.engine.decide(self.mono, self._server_ms, timers=timers):
            if proposal.attach is not None:
                self._attach(proposal, proposal.attach)
            else:
                self.step("router.write", self._write, proposal, proposal.data())
        for source in self.engine.wanted():
            self._fetch(source)
        if self.engine.tenure.role is not role:
            self.world.note(self.name, "is", self.engine.tenure.role.value)

    def _write(self, proposal: Proposal, data: bytes) -> None:
        guard = proposal.guard if self.guarded else None

        def done(seq: int | None, error: object) -> None:
            if seq is not None:
                return
            self.world.note(self.name, "write failed", proposal.subject, error)
            if isinstance(error, Refused):
                self.engine.refused(proposal, self.mono)
            else:
                self.engine.unresolved(self.mono)

        args = (proposal.subject, data, guard, None)
        timeout = self._policy.unresolved
        self._link.request("publish", *args, done=done, step="router.acked", timeout=timeout)

    def _attach(self, proposal: Proposal, payload: bytes) -> None:
        digest = hashlib.sha256(payload).hexdigest()
        event = proposal.event
        if not isinstance(event, Dispatch | Settled):
            raise TypeError(event)
        blob = BlobRef(name=digest, size=len(payload), digest=digest)
        data = encode(msgspec.structs.replace(event, blob=blob))

        def put(name: str | None, _error: object) -> None:
            if name is None:
                self.engine.unresolved(self.mono)
            else:
                self.step("router.write", self._write, proposal, data)

        self._link.request("put_blob", digest, payload, done=put, timeout=5.0)

    def _fetch(self, source: Source) -> None:
        def got(found: Any, _error: object) -> None:
            if found is None:
                self.engine.desk.agenda.wanted[source] = None
                self.after(_TICK, "", self._wake_up)
                return
            try:
                value = _value(source, found)
            except (LookupError, ValueError) as error:
                value = Failure(type(error).__name__, str(error))
            self.engine.fetched(source, value)
            self._wake_up()

        verb, key = ("get_blob", source.blob.name) if source.blob else ("get", source.seq)
        self._link.request(verb, key, done=got, step="router.fetched", timeout=5.0)

    # -- time

    def _tick(self) -> None:
        self.after(_TICK, "router.tick", self._tick)
        self._decide(timers=True)
        if self.up and self.engine.tenure.role is Role.LEADER:
            for queue in self.engine.missing_queues():
                if queue not in self._creating:
                    self._creating.add(queue)
                    self._create(queue)

    def _create(self, queue: tuple[str, str]) -> None:
        def made(seq: int | None, _error: object) -> None:
            self._creating.discard(queue)
            if seq is not None:
                self.engine.queue_is_ready(queue)
                self._wake_up()

        self._link.request("durable", queue, done=made, step="router.durable", timeout=5.0)

    def _beat(self, life: int) -> None:
        if life == self.life:
            self.after(_BEAT, "router.beat", self._beat, life)
            name = self.engine.tenure.name
            self._link.send("beat", f"cb.beat.router.{name}", encode(Beat(name, name, ROUTERS)))


def _value(source: Source, found: Any) -> Any:
    if source.blob is not None:
        return msgspec.json.decode(found)
    if source.inputs:
        return msgspec.json.decode(decode_flow_run(found.data).inputs)
    event = decode_event("outcome", found.data)
    result = event.result if isinstance(event, Outcome) else msgspec.UNSET
    if result is msgspec.UNSET:
        raise LookupError(source.seq)
    return msgspec.json.decode(result)
