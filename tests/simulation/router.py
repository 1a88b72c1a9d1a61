"""A router in the simulation: the real `Engine`, in a shell that does what `shell.py` does."""

from __future__ import annotations

from typing import Any

from callboard_broker.errors import BadInput
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, Epoch, decode_beat, decode_event, encode
from callboard_router.desk import Policy
from callboard_router.engine import ROUTERS, Engine
from callboard_router.liveness import Claim
from callboard_router.proposals import Proposal
from callboard_router.snapshot import digest, expand
from callboard_router.tenure import Role
from tests.simulation.errands import Errands
from tests.simulation.network import Link
from tests.simulation.reference import DIGEST_EVERY
from tests.simulation.server import Refused, Server, Stored
from tests.simulation.world import EPOCH_MS, Process, Violation, World

__all__ = ["Router"]

_TICK = 0.1
_BEAT = 0.5
_FROM_A_SNAPSHOT = 0.6


class Router(Process):
    """One router process.

    policies: one is chosen at each start. digests: of the state at some sequences, shared by all
    routers of a world. guarded: whether its writes name the epoch (a planted defect takes it away).
    restored: how often it began from a snapshot. snapshot_odds: of taking one, each tick.
    """

    guarded = True
    snapshot_odds = 0.01

    def __init__(
        self,
        world: World,
        server: Server,
        name: str,
        policies: list[Policy],
        digests: dict[int, str],
        allowed: set[tuple[str, int]],
    ) -> None:
        super().__init__(world, name)
        self._server = server
        self._policies = policies
        self._digests = digests
        self.allowed = allowed
        self._starts = 0
        self.restored = 0

    def begin(self) -> None:
        self._starts += 1
        self._policy = self.world.rng.choice(self._policies)
        self.engine = Engine(
            f"{self.name}-{self._starts}", Subjects(), self._policy, secret=self._secret
        )
        self._known_seq: int | None = None
        self._ahead_ms = self._heard_to = 0
        self._first = True
        self._chosen = False
        self._until = 0
        self._scheduled = False
        self._errands = Errands(self)
        self._asking: list[tuple[int, int, dict[str, Any]]] = []
        self.link = Link(self, self._server, made=self._made, step="router.connect")

    def ended(self) -> None:
        self.link.close()

    def cut(self, seconds: float | None = None) -> None:
        self.link.cut(seconds)

    def _secret(self) -> str:
        return f"{self.world.rng.getrandbits(32):08x}"

    @property
    def leads(self) -> bool:
        return self.engine.tenure.role is Role.LEADER

    @property
    def _server_ms(self) -> int:
        return int(self.mono * 1000) + self._ahead_ms

    def _saw(self, at_ms: int) -> None:
        self._ahead_ms = max(self._ahead_ms, at_ms - int(self.mono * 1000))

    # -- the connection

    def _made(self) -> None:
        self.link.send("serve", self._asked)
        if not self._first:
            self._known_seq = None
            self.engine.reconnected(self.mono)
        else:
            self._ahead_ms = EPOCH_MS - int(self._zero * 1000) - 5
        self._learn()

    def _learn(self) -> None:
        self.link.request("last", done=self._learned, timeout=5.0)

    def _learned(self, last: int | None, _error: object) -> None:
        if last is None:
            if self.link.connected:
                self._learn()
            return
        if self._first and not self._chosen:
            self._choose_start()
            return
        self._known_seq = last
        self.link.send("hear", self._heard_to, self._hear)
        self.link.send("read", self.engine.state.seq + 1, self._read)
        if self._first:
            self._first = False
            self._until = last
            self._beat(self.life)
            self._begin_if_read()

    def _choose_start(self) -> None:
        """From the latest snapshot, if the journal's begin is gone, and else sometimes."""

        def named(found: tuple[int, Stored | None] | None, _error: object) -> None:
            if found is None:
                self._learn()
                return
            first, record = found
            if record is not None and (first > 1 or self.world.rng.random() < _FROM_A_SNAPSHOT):
                try:
                    event = decode_event("epoch", record.data)
                except BadInput:  # somebody's garbage: the leader will write another one
                    self.after(_TICK, "", self._learn)
                    return
                if isinstance(event, Epoch) and event.snapshot is not None:
                    name, expected = event.snapshot.blob.name, event.snapshot.digest
                    self.link.request("get_blob", name, expected, done=read, timeout=5.0)
                    return
                if first > 1:
                    raise Violation("I4", f"the journal begins at {first}, without a snapshot")
            self._chosen = True
            self._learn()

        def read(found: tuple[bytes, str] | None, _error: object) -> None:
            if found is not None:
                self.engine.restore(expand(*found), self.mono)
                self._chosen = True
                self.restored += 1
                self.world.note(self.name, "begins from the snapshot at", self.engine.state.seq)
            self._learn()

        self.link.request("first", done=named, timeout=5.0)

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
            if record.seq % DIGEST_EVERY == 0:
                found = digest(engine.state)
                if self._digests.setdefault(record.seq, found) != found:
                    raise Violation("I4", f"{self.name} has another state at {record.seq}")
        self._begin_if_read()
        self.wake_up()
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
        self.wake_up()

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

        self.link.request("last", done=found, timeout=5.0)

    def _reply(self, key: int, last: int, question: dict[str, Any]) -> None:
        claim = Claim(**{name: question[name] for name in Claim.__slots__})
        known = last if self._known_seq is None else self._known_seq
        word = self.engine.confirm(claim, question["secret"], known, self.mono)
        self.world.note(self.name, "answers", question, word)
        if word is not None:
            if word.go:
                self.allowed.add((claim.task, claim.attempt))
            answer = {"go": word.go, "wait": word.wait, "why": word.why}
            self.step("router.answer", self.link.send, "reply", key, answer)

    # -- what goes out

    def wake_up(self) -> None:
        """There may be something to decide."""
        if not self._scheduled:
            self._scheduled = True
            self.after(0, "router.decide", self._decide)

    def _decide(self, *, timers: bool = False) -> None:
        self._scheduled = False
        role = self.engine.tenure.role
        for proposal in self.engine.decide(self.mono, self._server_ms, timers=timers):
            if proposal.attach is not None:
                self._errands.attach(proposal, proposal.attach)
            else:
                self.step("router.write", self.write, proposal, proposal.data())
        for source in self.engine.wanted():
            self._errands.fetch(source)
        if self.engine.tenure.role is not role:
            self.world.note(self.name, "is", self.engine.tenure.role.value)

    def write(self, proposal: Proposal, data: bytes) -> None:
        """Publish it, on condition that its epoch still is the last."""
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
        self.link.request("publish", *args, done=done, step="router.acked", timeout=timeout)

    # -- time

    def _tick(self) -> None:
        self.after(_TICK, "router.tick", self._tick)
        self._decide(timers=True)
        if self.up and self.leads:
            self._errands.tick()

    def _beat(self, life: int) -> None:
        if life == self.life:
            self.after(_BEAT, "router.beat", self._beat, life)
            name = self.engine.tenure.name
            self.link.send("beat", f"cb.beat.router.{name}", encode(Beat(name, name, ROUTERS)))
