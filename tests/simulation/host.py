"""A host in the simulation: the real `Attempts`, in a shell that does what `intake.py` does.

Work comes out of queues and into a mailbox. The beats have a connection of their own, as they have
a thread of their own; what a handler does stands in `handlers.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from callboard_agents.attempts import Attempts, Confirm, Start
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, Dispatch, Offer, decode_event, encode
from tests.simulation.checker import Checker
from tests.simulation.fitting import MAKES
from tests.simulation.handlers import Handlers, Run
from tests.simulation.network import Link
from tests.simulation.server import Refused, Server, Stored
from tests.simulation.work import Serves
from tests.simulation.world import EPOCH_MS, Process, World

__all__ = ["CLOCK_ERROR_MS", "Host"]

CLOCK_ERROR_MS = 50
_ASK = 2.0
_AGAIN = 0.1
_BUSY_CPU = 0.25
_BUSY_MB = 100.0
_SUBJECTS = Subjects()


class Host(Process):
    """One host: killed and started again, it is a new incarnation under its old name."""

    def __init__(
        self, world: World, server: Server, name: str, serves: Serves, checker: Checker
    ) -> None:
        super().__init__(world, name)
        self.server = server
        self.serves = serves
        self.checker = checker
        self._starts = 0

    def begin(self) -> None:
        self._starts += 1
        timing = self.serves.timing
        self.attempts = Attempts(
            f"{self.name}-{self._starts}",
            lease_seconds=timing.lease,
            suspect_seconds=timing.suspect,
        )
        self._ahead_ms = EPOCH_MS - int(self._zero * 1000)
        self._ahead_ms -= self.world.rng.randint(0, CLOCK_ERROR_MS)
        self._fresh_from = 0
        self._known = False
        self._used = {(self.serves.pool, name): 0 for name in self.serves.capabilities}
        self._pulled = dict.fromkeys(self._used, 0)
        self._handlers = Handlers(self)
        self.links = [
            Link(self, self.server, made=self._made, lost=self._lost, step="host.connect"),
            Link(self, self.server, made=lambda: None),
        ]
        self.after(0.01, "host.beat", self._beat)

    def ended(self) -> None:
        for link in self.links:
            link.close()
        if self.world.rng.random() < 0.5:  # its supervisor says so, on a connection of its own
            beat = Beat(self.name, self.attempts.life.incarnation, self.serves.pool, gone=True)
            if self.world.rng.random() < 0.5:
                beat = msgspec.structs.replace(beat, incarnation=f"{self.name}-{self._starts}")
            self.world.after(self.world.rng.choice((0.002, 0.1, 1.0)), self._last_beat, beat)

    def _last_beat(self, beat: Beat) -> None:
        if self.server.up:
            self.server.take_beat(self._beat_subject, encode(beat))

    def cut(self, seconds: float | None = None) -> None:
        both = self.world.rng.random() < 0.5
        for link in self.links if both else self.world.rng.sample(self.links, 1):
            link.cut(seconds)

    @property
    def server_ms(self) -> int:
        return int(self.mono * 1000) + self._ahead_ms

    @property
    def _beat_subject(self) -> str:
        return _SUBJECTS.beat(self.serves.pool, self.name)

    # -- the connection that brings work

    def _made(self) -> None:
        pool = self.serves.pool
        self.links[0].send("box", (pool, self.name), partial(self.step, "host.boxed", self._boxed))
        stopped = partial(self.step, "host.stopped", self._handlers.stop)
        self.links[0].send("stoppers", pool, stopped)
        self._pulled = dict.fromkeys(self._used, 0)
        self._learn()
        self._refill()

    def _lost(self) -> None:
        self.attempts.connected()
        self._known = False
        self._fresh_from = 0

    def _learn(self) -> None:
        def learned(last: int | None, _error: object) -> None:
            if last is None:
                if self.links[0].connected:
                    self.after(_AGAIN, "", self._learn)
            else:
                self.attempts.stored_before(last)
                self._known = True
                self._fresh_from = last

        self.links[0].request("last", done=learned, timeout=5.0)

    def _refill(self) -> None:
        """Ask for as many dispatches as there are free slots."""
        if not self.attempts.wants_work(self.mono) or not self.links[0].connected:
            return
        for queue, used in self._used.items():
            missing = self.serves.slots - used - self._pulled[queue]
            if missing > 0:
                self._pulled[queue] += missing
                self._pull(queue, missing)

    def _pull(self, queue: tuple[str, str], count: int) -> None:
        def done(_count: int | None, error: object) -> None:
            if isinstance(error, Refused):  # the router has not made the durable yet
                self._pulled[queue] -= count
                self.after(_AGAIN, "", self._refill)

        call = partial(self.step, "host.delivered", self._delivered, queue)
        self.links[0].request("pull", queue, count, call, done=done, timeout=3600.0)

    # -- a dispatch

    def _delivered(self, queue: tuple[str, str], record: Stored) -> None:
        # acknowledged here: a delivery is never repeated for want of an acknowledgement
        self._pulled[queue] = max(0, self._pulled[queue] - 1)
        self.step("host.handed", self._handed, queue, record)

    def _boxed(self, record: Stored) -> None:
        dispatch = decode_event("dispatch", record.data)
        if not isinstance(dispatch, Dispatch):
            raise TypeError(dispatch)
        if dispatch.pool == self.serves.pool:
            self._handed((dispatch.pool, dispatch.capability), record)

    def _handed(self, queue: tuple[str, str], record: Stored) -> None:
        dispatch = decode_event("dispatch", record.data)
        if not isinstance(dispatch, Dispatch):
            raise TypeError(dispatch)
        verdict = self.attempts.offered(dispatch, record.seq, now_ms=self.server_ms, now=self.mono)
        tenant = record.subject.split(".")[2]
        if isinstance(verdict, Start):
            self._used[queue] += 1
            self._handlers.start(Run(queue, tenant, dispatch, verdict.life))
        elif isinstance(verdict, Confirm):
            self._used[queue] += 1
            self._ask(Run(queue, tenant, dispatch, verdict.life), record.seq)
        else:
            self.world.note(self.name, "refuses", dispatch.task, dispatch.attempt, verdict.reason)
            self._refill()

    def _ask(self, run: Run, seq: int) -> None:
        dispatch = run.dispatch
        if self.server_ms > dispatch.start_by:
            self.leave(run)
        elif not self._known:
            self.after(_AGAIN, "host.ask", self._ask, run, seq)
        elif not self.attempts.needs_word(seq):
            self._confirmed(run)
        else:
            question = {
                "task": dispatch.task,
                "attempt": dispatch.attempt,
                "secret": dispatch.secret,
                "host": self.name,
                "pool": self.serves.pool,
                "incarnation": run.life.incarnation,
                "seq": seq,
            }

            def answered(word: dict[str, Any] | None, _error: object) -> None:
                if word is None or word["wait"]:
                    self.after(_AGAIN, "host.ask", self._ask, run, seq)
                elif word["go"]:
                    self._confirmed(run)
                else:
                    self.leave(run)

            ask = self.links[0].request
            ask("ask", question, done=answered, step="host.answered", timeout=_ASK)

    def _confirmed(self, run: Run) -> None:
        verdict = self.attempts.confirmed(
            run.life, run.dispatch, now_ms=self.server_ms, now=self.mono
        )
        if isinstance(verdict, Start):
            self._handlers.start(run)
        else:
            self.leave(run)

    def _leave(self, run: Run) -> None:
        self._used[run.queue] -= 1
        self._refill()

    def leave(self, run: Run) -> None:
        """Its slot is free again."""
        self._used[run.queue] -= 1
        self._refill()

    # -- the beats

    def _beat(self) -> None:
        old = self.attempts.end_lease(self.mono)
        if old is not None:
            self.world.note(self.name, "lease of", old.incarnation, "has ended")
            self._handlers.drop(old)
        life, holds = self.attempts.snapshot()
        slots, make = self.serves.slots, MAKES[self.serves.disk]
        offers = [
            Offer(name, slots, max(0, slots - used), **make.declared(self.serves.disk))
            for (_, name), used in self._used.items()
        ]
        busy = sum(self._used.values())
        data = encode(
            Beat(
                self.name,
                life.incarnation,
                self.serves.pool,
                offers,
                holds,
                cpu=min(make.cpus, _BUSY_CPU * busy),
                cpus=make.cpus,
                allocated_mb=_BUSY_MB * busy,
                free_mb=max(1.0, make.memory_mb - _BUSY_MB * busy),
                fresh_from=self._fresh_from,
            )
        )
        sent = self.mono

        def done(seq: int | None, _error: object) -> None:
            if seq is not None:
                self.attempts.beat_stored(life, sent)
                self._refill()

        beat = self.links[1].request
        beat("beat", self._beat_subject, data, done=done, step="host.beaten", timeout=5.0)
        end = self.attempts.life.lease_end - self.mono
        pause = min(self.serves.timing.beat, end) if end > 0 else self.serves.timing.beat
        self.after(pause, "host.beat", self._beat)
