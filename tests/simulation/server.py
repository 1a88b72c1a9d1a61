"""A NATS server as far as Callboard rests on it: a journal with guards, beats, durables, questions.

The guard is NATS's own: a write that names a sequence is refused with 10071 unless the last message
on `cb.run.epoch` has exactly that sequence. A crash keeps the journal, may lose the beats, breaks
every connection, and a random part of what was delivered is handed over again, as if new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.simulation.network import Link, Pipe
from tests.simulation.world import Violation, World

__all__ = ["Refused", "Server", "Stored"]

_RECENT = 40
_OF_STREAMS = frozenset(
    {"publish", "beat", "last", "get", "durable", "put_blob", "get_blob"} | {"first"}
)


class Refused(NamedTuple):
    """A JetStream error."""

    code: int


class Stored(NamedTuple):
    """A message of a stream."""

    seq: int
    at_ms: int
    subject: str
    data: bytes


@dataclass(slots=True)
class _Durable:
    """What one queue hands over, each message once. wanted: who pulls, and how many."""

    pending: deque[int] = field(default_factory=deque)
    delivered: deque[int] = field(default_factory=lambda: deque(maxlen=_RECENT))
    wanted: deque[list[Any]] = field(default_factory=deque)


class Server:
    """The server, with everything that it stores.

    watch: called with each message and its tag when it is stored. unchecked: guards are ignored.
    """

    def __init__(self, world: World, watch: Callable[[Stored, Any], None]) -> None:
        self.world = world
        self.up = True
        self.life = 0
        self.links: list[Link] = []
        self.journal: list[Stored] = []
        self.blobs: dict[str, bytes] = {}
        self.crashes = self.refusals = self.repeats = 0
        self._watch = watch
        self._epoch = 0
        self._at_ms = 0
        self._beats: dict[str, Stored] = {}
        self._beat_seq = 0
        self._durables: dict[tuple[str, str], _Durable] = {}
        self._readers: list[tuple[Pipe, Callable[[list[Stored]], None]]] = []
        self._hearers: list[tuple[Pipe, Callable[[list[Stored]], None]]] = []
        self._routers: list[tuple[Pipe, Callable[..., None]]] = []
        self._asked: dict[int, tuple[Pipe, int]] = {}
        self._boxes: dict[tuple[str, str], tuple[Pipe, Callable[[Stored], None]]] = {}
        self._stoppers: list[tuple[str, Pipe, Callable[..., None]]] = []
        self._first = 1
        self.lost = 0
        self._stalled_until = 0.0
        world.crash_server = self.crash
        world.stall_server = self._stall

    # -- its life

    def crash(self) -> None:
        """kill -9 and, a little later, a restart."""
        if not self.up or not self.world.faults.active:
            return
        rng = self.world.rng
        self.world.note("server", "is killed")
        self.crashes += 1
        self.up = False
        self.life += 1
        if rng.random() < 0.5:
            self._beats.clear()
        for waiting in (self._readers, self._hearers, self._routers):
            waiting.clear()
        self._asked.clear()
        self._boxes.clear()
        self._stoppers.clear()
        for queue, durable in self._durables.items():
            durable.wanted.clear()
            share = rng.choice((0.0, 0.2, 0.6, 1.0))
            again = sorted({seq for seq in durable.delivered if rng.random() < share})
            if again:
                self.world.note("server", "will hand over again", queue, again)
            durable.pending.extendleft(reversed(again))
            self.repeats += len(again)
        for link in list(self.links):
            link.cut(0.0)
        self.world.after(rng.choice((0.1, 1.0, 4.0, 9.0)), self._restart)

    def _restart(self) -> None:
        self.world.note("server", "is up again")
        self.up = True

    def _stall(self) -> None:
        """The streams have no leader: connections live, and nothing is stored or answered."""
        self._stalled_until = self.world.now + self.world.rng.choice((1.0, 4.0, 14.0))
        self.world.note("server", "stalls until", self._stalled_until)

    def take(self, pipe: Pipe, verb: str, args: tuple[Any, ...]) -> None:
        """A client's message has arrived."""
        stalled = self.world.faults.active and self.world.now < self._stalled_until
        if stalled and verb in _OF_STREAMS:
            return
        getattr(self, f"_on_{verb}")(pipe, *args)

    def _answer(self, pipe: Pipe, number: int | None, value: Any, error: Any = None) -> None:
        if number is not None:
            pipe.push(pipe.link.answered, number, value, error)

    def _struck(self, step: str) -> None:
        fault = self.world.faults.at(step)
        if fault == "stall":
            self._stall()
        elif fault:
            self.world.after(self.world.rng.choice((0, 0.0005, 0.01)), self.crash)

    def _ack_is_lost(self) -> bool:
        return self.world.faults.active and self.world.rng.random() < 0.004

    # -- the journal

    def _on_publish(
        self, pipe: Pipe, number: int | None, subject: str, data: bytes, guard: int | None, tag: Any
    ) -> None:
        if guard is not None and guard != self._epoch:
            self.world.note("server", "refuses", subject, "guard", guard, "is", self._epoch)
            self.refusals += 1
            self._struck("server.refused")
            self._answer(pipe, number, None, Refused(10071))
            return
        seq = self.store(subject, data, tag)
        self._struck("server.stored")
        if not self._ack_is_lost():
            self._answer(pipe, number, seq)

    def store(self, subject: str, data: bytes, tag: Any = None) -> int:
        """Append to the journal; tell readers and durables."""
        self._at_ms = max(self._at_ms, self.world.server_ms)
        stored = Stored(len(self.journal) + 1, self._at_ms, subject, data)
        self.journal.append(stored)
        self.world.note("server", "stores", stored.seq, subject, data[:130])
        if subject == "cb.run.epoch":
            self._epoch = stored.seq
        self._watch(stored, tag)
        for pipe, call in self._readers:
            pipe.push(call, [stored])
        parts = subject.split(".")
        if parts[1] == "run" and len(parts) > 4 and parts[3] == "dispatch":
            queue = (parts[4], ".".join(parts[5:]))
            if queue in self._durables:
                self._durables[queue].pending.append(stored.seq)
                self._hand_over(queue)
        elif parts[1] == "run" and len(parts) == 5 and parts[3] == "mailbox":
            self._put_in_box(parts[4], stored)
        return stored.seq

    def _put_in_box(self, host: str, stored: Stored) -> None:
        """Republished and not stored: whoever does not listen has missed it."""
        for (_, name), (pipe, call) in self._boxes.items():
            if name == host and pipe.open and not self._is_lost():
                pipe.push(call, stored)

    def _is_lost(self) -> bool:
        lost = self.world.faults.active and self.world.rng.random() < 0.03
        self.lost += lost
        return lost

    def _on_box(self, pipe: Pipe, _number: None, key: tuple[str, str], call: Any) -> None:
        if pipe.open:
            self._boxes[key] = (pipe, call)

    def _on_stoppers(self, pipe: Pipe, _number: None, pool: str, call: Any) -> None:
        if pipe.open:
            self._stoppers = [known for known in self._stoppers if known[1].open]
            self._stoppers.append((pool, pipe, call))

    def _on_stop(self, _pipe: Pipe, _number: None, pool: str, attempts: Any, why: str) -> None:
        self.world.note("server", "passes on: stop", attempts, why)
        for wanted, pipe, call in self._stoppers:
            if wanted == pool and not self._is_lost():
                pipe.push(call, attempts)

    def _on_first(self, pipe: Pipe, number: int) -> None:
        """Where the journal begins, and its last epoch message."""
        found = self.journal[self._epoch - 1] if self._epoch else None
        self._answer(pipe, number, (self._first, found))

    def _on_purge(self, _pipe: Pipe, _number: None, below: int) -> None:
        self.world.note("server", "purges below", below)
        self._first = max(self._first, below)

    def message(self, seq: int) -> Stored:
        """What is stored at `seq`. Raises `Violation` if it was purged."""
        if seq < self._first:
            raise Violation("purge", f"{seq} is still needed, but purged below {self._first}")
        return self.journal[seq - 1]

    def _on_last(self, pipe: Pipe, number: int) -> None:
        self._answer(pipe, number, len(self.journal))

    def _on_get(self, pipe: Pipe, number: int, seq: int) -> None:
        self._answer(pipe, number, self.message(seq))

    def _on_read(self, pipe: Pipe, _number: None, start: int, call: Any) -> None:
        if pipe.open:
            self._readers = [reader for reader in self._readers if reader[0].open]
            self._readers.append((pipe, call))
            if start < self._first:  # a real one ends with `JournalCut`, and is started again
                pipe.link.process.crash()
                return
            if len(self.journal) >= start:
                pipe.push(call, self.journal[start - 1 :])

    # -- blobs

    def _on_put_blob(self, pipe: Pipe, number: int, name: str, data: bytes) -> None:
        self.blobs[name] = data
        self._answer(pipe, number, name)

    def _on_get_blob(self, pipe: Pipe, number: int, name: str, with_it: Any = None) -> None:
        found = self.blobs[name]
        self._answer(pipe, number, found if with_it is None else (found, with_it))

    # -- beats

    def _on_beat(self, pipe: Pipe, number: int | None, subject: str, data: bytes) -> None:
        self.take_beat(subject, data)
        self._struck("server.beaten")
        if not self._ack_is_lost():
            self._answer(pipe, number, self._beat_seq)

    def take_beat(self, subject: str, data: bytes) -> None:
        """Store a beat and tell who listens."""
        self._beat_seq += 1
        stored = Stored(self._beat_seq, self.world.server_ms, subject, data)
        self._beats.pop(subject, None)
        self._beats[subject] = stored
        for hearer, call in self._hearers:
            hearer.push(call, [stored])

    def _on_hear(self, pipe: Pipe, _number: None, after: int, call: Any) -> None:
        if pipe.open:
            self._hearers = [hearer for hearer in self._hearers if hearer[0].open]
            self._hearers.append((pipe, call))
            pipe.push(call, [beat for beat in self._beats.values() if beat.seq > after])

    # -- durables

    def _on_durable(self, pipe: Pipe, number: int, queue: tuple[str, str]) -> None:
        self._durables.setdefault(queue, _Durable())
        self._answer(pipe, number, len(self.journal))

    def _on_pull(
        self, pipe: Pipe, number: int, queue: tuple[str, str], count: int, call: Any
    ) -> None:
        durable = self._durables.get(queue)
        if durable is None:
            self._answer(pipe, number, None, Refused(10014))
            return
        self._answer(pipe, number, count)
        durable.wanted.append([pipe, count, call])
        self._hand_over(queue)

    def _hand_over(self, queue: tuple[str, str]) -> None:
        durable = self._durables[queue]
        while durable.pending and durable.wanted:
            wanted = durable.wanted[0]
            pipe, count, call = wanted
            if not pipe.open and self.world.rng.random() < 0.7:
                durable.wanted.popleft()
                continue
            wanted[1] = count - 1
            if not wanted[1]:
                durable.wanted.popleft()
            seq = durable.pending.popleft()
            durable.delivered.append(seq)
            pipe.push(call, self.journal[seq - 1])
            if self.world.faults.active and self.world.rng.random() < 0.01:
                pipe.push(call, self.journal[seq - 1])
            self._struck("server.handed")

    # -- questions

    def _on_serve(self, pipe: Pipe, _number: None, call: Any) -> None:
        if pipe.open:
            self._routers = [router for router in self._routers if router[0].open]
            self._routers.append((pipe, call))

    def _on_ask(self, pipe: Pipe, number: int, question: dict[str, Any]) -> None:
        key = len(self._asked)
        self._asked[key] = (pipe, number)
        for router, call in self._routers:
            router.push(call, key, question)

    def _on_reply(self, _pipe: Pipe, _number: None, key: int, word: dict[str, Any]) -> None:
        asked = self._asked.get(key)
        if asked is not None:
            self._answer(asked[0], asked[1], word)
