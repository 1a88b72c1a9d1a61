"""A host in the simulation: the real `Attempts`, in a shell that does what `intake.py` does.

Its handlers note in the checker's outside table what they really start. The beats have a
connection of their own, as they have a thread of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from callboard_agents.attempts import Attempts, Confirm, Life, Start
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, Dispatch, Failure, Offer, Outcome, decode_event, encode
from tests.simulation.checker import Checker
from tests.simulation.network import Link
from tests.simulation.server import Refused, Server, Stored
from tests.simulation.work import Serves, work
from tests.simulation.world import EPOCH_MS, Process, World

__all__ = ["CLOCK_ERROR_MS", "Host"]

CLOCK_ERROR_MS = 50
_ASK = 2.0
_AGAIN = 0.1
_RESEND = 0.2
_SUBJECTS = Subjects()


@dataclass(slots=True, eq=False)
class _Run:
    queue: tuple[str, str]
    tenant: str
    dispatch: Dispatch
    life: Life
    dropped: bool = False


class Host(Process):
    """One host: killed and started again, it is a new incarnation under its old name."""

    def __init__(
        self, world: World, server: Server, name: str, serves: Serves, checker: Checker
    ) -> None:
        super().__init__(world, name)
        self._server = server
        self._serves = serves
        self._checker = checker
        self._starts = 0

    def begin(self) -> None:
        self._starts += 1
        timing = self._serves.timing
        self.attempts = Attempts(
            f"{self.name}-{self._starts}",
            lease_seconds=timing.lease,
            suspect_seconds=timing.suspect,
        )
        self._ahead_ms = EPOCH_MS - int(self._zero * 1000)
        self._ahead_ms -= self.world.rng.randint(0, CLOCK_ERROR_MS)
        self._fresh_from = 0
        self._known = False
        self._used = {(self._serves.pool, name): 0 for name in self._serves.capabilities}
        self._pulled = dict.fromkeys(self._used, 0)
        self._runs: set[_Run] = set()
        self._links = [
            Link(self, self._server, made=self._made, lost=self._lost, step="host.connect"),
            Link(self, self._server, made=lambda: None),
        ]
        self.after(0.01, "host.beat", self._beat)

    def ended(self) -> None:
        for link in self._links:
            link.close()
        if self.world.rng.random() < 0.5:  # its supervisor says so, on a connection of its own
            beat = Beat(self.name, self.attempts.life.incarnation, self._serves.pool, gone=True)
            if self.world.rng.random() < 0.5:
                beat = msgspec.structs.replace(beat, incarnation=f"{self.name}-{self._starts}")
            self.world.after(self.world.rng.choice((0.002, 0.1, 1.0)), self._last_beat, beat)

    def _last_beat(self, beat: Beat) -> None:
        if self._server.up:
            self._server.take_beat(self._beat_subject, encode(beat))

    def cut(self, seconds: float | None = None) -> None:
        both = self.world.rng.random() < 0.5
        for link in self._links if both else self.world.rng.sample(self._links, 1):
            link.cut(seconds)

    @property
    def _server_ms(self) -> int:
        return int(self.mono * 1000) + self._ahead_ms

    @property
    def _beat_subject(self) -> str:
        return _SUBJECTS.beat(self._serves.pool, self.name)

    # -- the connection that brings work

    def _made(self) -> None:
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
                if self._links[0].connected:
                    self.after(_AGAIN, "", self._learn)
            else:
                self.attempts.stored_before(last)
                self._known = True
                self._fresh_from = last

        self._links[0].request("last", done=learned, timeout=5.0)

    def _refill(self) -> None:
        """Ask for as many dispatches as there are free slots."""
        if not self.attempts.wants_work(self.mono) or not self._links[0].connected:
            return
        for queue, used in self._used.items():
            missing = self._serves.slots - used - self._pulled[queue]
            if missing > 0:
                self._pulled[queue] += missing
                self._pull(queue, missing)

    def _pull(self, queue: tuple[str, str], count: int) -> None:
        def done(_count: int | None, error: object) -> None:
            if isinstance(error, Refused):  # the router has not made the durable yet
                self._pulled[queue] -= count
                self.after(_AGAIN, "", self._refill)

        call = partial(self.step, "host.delivered", self._delivered, queue)
        self._links[0].request("pull", queue, count, call, done=done, timeout=3600.0)

    # -- a dispatch

    def _delivered(self, queue: tuple[str, str], record: Stored) -> None:
        # acknowledged here: a delivery is never repeated for want of an acknowledgement
        self._pulled[queue] = max(0, self._pulled[queue] - 1)
        self.step("host.handed", self._handed, queue, record)

    def _handed(self, queue: tuple[str, str], record: Stored) -> None:
        dispatch = decode_event("dispatch", record.data)
        if not isinstance(dispatch, Dispatch):
            raise TypeError(dispatch)
        verdict = self.attempts.offered(dispatch, record.seq, now_ms=self._server_ms, now=self.mono)
        tenant = record.subject.split(".")[2]
        if isinstance(verdict, Start):
            self._used[queue] += 1
            self._start(_Run(queue, tenant, dispatch, verdict.life))
        elif isinstance(verdict, Confirm):
            self._used[queue] += 1
            self._ask(_Run(queue, tenant, dispatch, verdict.life), record.seq)
        else:
            self.world.note(self.name, "refuses", dispatch.task, dispatch.attempt, verdict.reason)
            self._refill()

    def _ask(self, run: _Run, seq: int) -> None:
        dispatch = run.dispatch
        if self._server_ms > dispatch.start_by:
            self._leave(run)
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
                "incarnation": run.life.incarnation,
                "seq": seq,
            }

            def answered(word: dict[str, Any] | None, _error: object) -> None:
                if word is None or word["wait"]:
                    self.after(_AGAIN, "host.ask", self._ask, run, seq)
                elif word["go"]:
                    self._confirmed(run)
                else:
                    self._leave(run)

            ask = self._links[0].request
            ask("ask", question, done=answered, step="host.answered", timeout=_ASK)

    def _confirmed(self, run: _Run) -> None:
        verdict = self.attempts.confirmed(
            run.life, run.dispatch, now_ms=self._server_ms, now=self.mono
        )
        if isinstance(verdict, Start):
            self._start(run)
        else:
            self._leave(run)

    def _leave(self, run: _Run) -> None:
        self._used[run.queue] -= 1
        self._refill()

    # -- an attempt

    def _start(self, run: _Run) -> None:
        # The verdict and the start are one step: no clock may pass between them.
        payload = self._payload(run.dispatch)
        self._runs.add(run)
        self._checker.started(run.dispatch, self.name, run.life.incarnation, payload)
        self.step("host.started", self._run, run, payload)

    def _payload(self, dispatch: Dispatch) -> Any:
        if dispatch.blob is not None:
            return msgspec.json.decode(self._server.blobs[dispatch.blob.name])
        if dispatch.post is not None:
            return msgspec.json.decode(self._server.journal[dispatch.post - 1].data)["payload"]
        if isinstance(dispatch.payload, msgspec.Raw):
            return msgspec.json.decode(dispatch.payload)
        raise TypeError(dispatch)

    def _run(self, run: _Run, payload: Any) -> None:
        asked = payload if isinstance(payload, dict) else {}
        if asked.get("poison") and self.world.faults.active:
            self.crash()
            return
        rng = self.world.rng
        most = self._serves.slow if rng.random() < 0.1 and self.world.faults.active else 0.3
        self.after(rng.uniform(0.001, most), "host.finish", self._finish, run, payload)

    def _finish(self, run: _Run, payload: Any) -> None:
        self._runs.discard(run)
        self._leave(run)
        if run.dropped:
            return
        dispatch = run.dispatch
        asked = payload if isinstance(payload, dict) else {}
        failed = asked.get("fail")
        result = b"1e999" if asked.get("odd") else encode(work(payload))
        outcome = Outcome(
            dispatch.task,
            dispatch.attempt,
            dispatch.secret,
            self.name,
            0,
            self._server_ms,
            msgspec.UNSET if failed else msgspec.Raw(result),
            error=Failure("Boom", "asked to fail") if failed else None,
        )
        subject = _SUBJECTS.run(run.tenant, "outcome", dispatch.shard)
        self.step("host.report", self._report, run, subject, encode(outcome))

    def _report(self, run: _Run, subject: str, data: bytes) -> None:
        key = (run.dispatch.task, run.dispatch.attempt)
        if not self.attempts.may_report(run.life, self.mono):
            self.world.note(self.name, "drops the outcome of", *key)
            self.attempts.release(run.life, *key)
            return

        def done(seq: int | None, _error: object) -> None:
            if seq is None:
                self.after(_RESEND, "host.report", self._report, run, subject, data)
            else:
                self.attempts.release(run.life, *key)

        publish = self._links[0].request
        publish("publish", subject, data, None, None, done=done, step="host.reported", timeout=5.0)

    # -- the beats

    def _beat(self) -> None:
        old = self.attempts.end_lease(self.mono)
        if old is not None:
            self.world.note(self.name, "lease of", old.incarnation, "has ended")
            for run in self._runs:
                run.dropped = run.dropped or run.life is old
        life, holds = self.attempts.snapshot()
        slots = self._serves.slots
        offers = [Offer(name, slots, slots - self._used[pool, name]) for pool, name in self._used]
        data = encode(
            Beat(
                self.name,
                life.incarnation,
                self._serves.pool,
                offers,
                holds,
                fresh_from=self._fresh_from,
            )
        )
        sent = self.mono

        def done(seq: int | None, _error: object) -> None:
            if seq is not None:
                self.attempts.beat_stored(life, sent)
                self._refill()

        beat = self._links[1].request
        beat("beat", self._beat_subject, data, done=done, step="host.beaten", timeout=5.0)
        end = self.attempts.life.lease_end - self.mono
        pause = min(self._serves.timing.beat, end) if end > 0 else self._serves.timing.beat
        self.after(pause, "host.beat", self._beat)
