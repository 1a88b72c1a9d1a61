"""What the handlers of a host do in the simulation: compute, fail, spawn, and stop when asked.

Each start is noted in the checker's outside table. An outcome is sent until it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from callboard_agents.attempts import Life
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Checkpoint, Dispatch, Failure, Outcome, encode
from tests.simulation.sent import Sent
from tests.simulation.work import work

if TYPE_CHECKING:
    from tests.simulation.host import Host

__all__ = ["Handlers", "Run"]

_RESEND = 0.2
_LAST_WORDS = 0.1
"""How often an outcome with a cost is the last that a host says: it arrives after its death."""
_SUBJECTS = Subjects()


@dataclass(slots=True, eq=False)
class Run:
    """An attempt on this host. failure: why it ends early, if it does. checkpoints: so far."""

    queue: tuple[str, str]
    tenant: str
    dispatch: Dispatch
    life: Life
    dropped: bool = False
    over: bool = False
    checkpoints: int = 0
    failure: Failure | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.dispatch.task, self.dispatch.attempt


class Handlers:
    """The running handlers of one life of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._runs: dict[Run, None] = {}

    def start(self, run: Run) -> None:
        """The verdict and the start are one step: no clock may pass between them."""
        host = self._host
        payload = self._payload(run.dispatch)
        self._runs[run] = None
        host.checker.started(run.dispatch, host.name, run.life.incarnation, payload)
        host.step("host.started", self._run, run, payload)

    def drop(self, life: Life) -> None:
        """The lease under which they were started is over."""
        for run in self._runs:
            run.dropped = run.dropped or run.life is life

    def stop(self, attempts: list[tuple[str, int]]) -> None:
        """The router asks; most handlers obey, and some do not listen."""
        for run in list(self._runs):
            if run.key in attempts and self._host.world.rng.random() < 0.8:
                self._end_early(run, Failure("Cancelled", "asked to stop", final=True))

    def _payload(self, dispatch: Dispatch) -> Any:
        server = self._host.server
        if dispatch.blob is not None:
            return msgspec.json.decode(server.blobs[dispatch.blob.name])
        if dispatch.post is not None:
            return msgspec.json.decode(server.message(dispatch.post).data)["payload"]
        if isinstance(dispatch.payload, msgspec.Raw):
            return msgspec.json.decode(dispatch.payload)
        raise TypeError(dispatch)

    def _run(self, run: Run, payload: Any) -> None:
        host, rng = self._host, self._host.world.rng
        faulty = host.world.faults.active
        asked = payload if isinstance(payload, dict) else {}
        if asked.get("poison") and faulty:
            host.crash()
            return
        for number in range(asked.get("spawn", 0)):
            host.after(rng.uniform(0, 0.3), "host.spawned", self._spawn, run, number)
        most = host.serves.slow if rng.random() < 0.1 and faulty else 0.3
        lasts = rng.uniform(0.001, most)
        if run.dispatch.timeout is not None and lasts > run.dispatch.timeout:
            late = Failure("TimedOut", "the handler took too long")
            host.after(run.dispatch.timeout, "host.finish", self._end_early, run, late)
        elif run.dispatch.heartbeat is not None and rng.random() < 0.2:
            silent = Failure("HeartbeatMissed", "the handler gave no sign of life")
            host.after(run.dispatch.heartbeat, "host.finish", self._end_early, run, silent)
            lasts += run.dispatch.heartbeat
        host.after(lasts, "host.finish", self._finish, run, payload)
        for _ in range(rng.choice((0, 0, 1, 3))):
            host.after(rng.uniform(0, lasts), "host.checkpoint", self._checkpoint, run)

    def _checkpoint(self, run: Run) -> None:
        """Some are too long to stand in the router's state."""
        host, dispatch = self._host, run.dispatch
        if run.over:
            return
        run.checkpoints += 1
        pad = host.world.rng.choice((0, 0, 5_000))
        state = {"by": [*run.key, run.checkpoints], "pad": "x" * pad}
        event = Checkpoint(
            *run.key, dispatch.secret, host.name, run.checkpoints, msgspec.Raw(encode(state))
        )
        subject = _SUBJECTS.run(run.tenant, "checkpoint", dispatch.shard)
        self._store(run, subject, encode(event))

    def _store(self, run: Run, subject: str, data: bytes) -> None:
        """Again and again, perhaps when a later one is stored already, or the attempt is over."""
        host = self._host

        def done(seq: int | None, _error: object) -> None:
            if seq is None:
                host.after(_RESEND, "host.checkpoint", self._store, run, subject, data)

        if host.attempts.may_report(run.life, host.mono):
            publish = host.links[0].request
            publish("publish", subject, data, None, None, done=done, timeout=5.0)

    def _spawn(self, run: Run, number: int) -> None:
        """One key for all attempts: a retry finds the child that the one before has made."""
        task, attempt = run.key
        proof = (task, attempt, run.dispatch.secret)
        key = f"{task}/{number}"
        body: dict[str, Any] = {"payload": {"child": number}, "key": key}
        body["parent"] = {"task": task, "attempt": attempt, "secret": proof[2]}
        subject = _SUBJECTS.task(run.tenant, self._host.serves.capabilities[0])
        sent = Sent(
            kind="task",
            tenant=run.tenant,
            subject=subject,
            data=encode(body),
            body=body,
            key=key,
            parent=proof,
        )
        link = self._host.links[0]
        link.request("publish", subject, sent.data, None, sent, done=_whatever, timeout=5.0)

    def _end_early(self, run: Run, failure: Failure) -> None:
        run.failure = run.failure or failure
        self._finish(run, None)

    def _finish(self, run: Run, payload: Any) -> None:
        if run.over:
            return
        run.over = True
        self._runs.pop(run, None)
        self._host.leave(run)
        if run.dropped:
            return
        dispatch, rng = run.dispatch, self._host.world.rng
        asked = payload if isinstance(payload, dict) else {}
        failure = run.failure
        if failure is None and (asked.get("fail") or _is_flaky(asked, dispatch.attempt)):
            failure = Failure("Boom", "asked to fail", retry_after=asked.get("retry_after"))
        result = b"1e999" if asked.get("odd") else encode(work(payload))
        outcome = Outcome(
            dispatch.task,
            dispatch.attempt,
            dispatch.secret,
            self._host.name,
            0,
            self._host.server_ms,
            msgspec.UNSET if failure else msgspec.Raw(result),
            error=failure,
            used={"tokens": float(rng.choice((0, 5, 30, 90)))} if rng.random() < 0.6 else {},
        )
        subject = _SUBJECTS.run(run.tenant, "outcome", dispatch.shard)
        self._host.step("host.report", self._report, run, subject, encode(outcome))

    def _report(self, run: Run, subject: str, data: bytes) -> None:
        host = self._host
        if not host.attempts.may_report(run.life, host.mono):
            host.world.note(host.name, "drops the outcome of", *run.key)
            host.attempts.release(run.life, *run.key)
            return

        def done(seq: int | None, _error: object) -> None:
            if seq is None:
                host.after(_RESEND, "host.report", self._report, run, subject, data)
            else:
                host.attempts.release(run.life, *run.key)

        publish = host.links[0].request
        publish("publish", subject, data, None, None, done=done, step="host.reported", timeout=5.0)
        costly = host.world.faults.active and b'"used"' in data
        if costly and host.world.rng.random() < _LAST_WORDS:
            host.links[0].cut(late=host.world.rng.choice((2.0, 12.0, 25.0)))
            host.crash()


def _is_flaky(asked: dict[str, Any], attempt: int) -> bool:
    """Each so many-th attempt succeeds."""
    return bool(asked.get("flaky")) and attempt % (asked["flaky"] + 1) != 0


def _whatever(_seq: int | None, _error: object) -> None:
    """Whether a spawned task was stored, its handler does not wait to hear."""
