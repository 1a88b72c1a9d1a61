"""Posters: they post what was drawn for them, and repeat what nobody acknowledged.

In the time of calm an operator looks after what would wait for ever: gates, pauses, schedules.
"""

from __future__ import annotations

import json
from typing import Any

from tests.simulation.checker import Checker
from tests.simulation.drawing import aim, draw_resume
from tests.simulation.network import Link
from tests.simulation.sent import Sent
from tests.simulation.server import Server
from tests.simulation.tables import UNDECIDED
from tests.simulation.world import Process, Violation, World

__all__ = ["Operator", "Poster"]

_GIVE_UP = 25.0
_LOOK = 2.0
_SCHEDULES_UNTIL = 90.0
_STALL = 20.0
"""Above a lease: until then a router may not know that a place is free."""


class Poster(Process):
    """One client process. killed, it forgets what it was about to repeat.

    plan: (when, what). open: what is neither acknowledged nor given up.
    """

    def __init__(
        self, server: Server, name: str, plan: list[tuple[float, Sent]], checker: Checker
    ) -> None:
        super().__init__(server.world, name)
        self._server = server
        self._checker = checker
        self._plan = plan
        self.open: set[Sent] = set()

    def begin(self) -> None:
        self.open.clear()
        self._link = Link(self, self._server, made=lambda: None)
        for when, sent in self._plan:
            if when >= self.world.now:
                self.after(when - self.world.now, "poster.send", self._send, sent)

    def ended(self) -> None:
        self._link.close()

    def cut(self, seconds: float | None = None) -> None:
        self._link.cut(seconds)

    def _send(self, sent: Sent, first: float | None = None) -> None:
        begun = self.mono if first is None else first
        self.open.add(sent)
        if not sent.data and sent.kind == "command":
            aim(sent, self.world.rng, self._checker.tables)

        def done(seq: int | None, _error: object) -> None:
            if seq is not None:
                sent.acked.append(seq)
                self.open.discard(sent)
            elif self.mono - begun < _GIVE_UP and sent.nonce is not None:
                self.after(1.0, "poster.send", self._send, sent, begun)
            else:
                self.open.discard(sent)

        args = (sent.subject, sent.data, None, sent)
        self._link.request("publish", *args, done=done, step="poster.acked", timeout=2.0)


class Operator(Process):
    """A person with patience, in the time of calm: approves, signals, resumes, ends schedules.

    From the checker's tables the operator sees at once what it takes others a question to find out.
    rests: there was nothing to do at the last look.
    """

    def __init__(self, world: World, server: Server, checker: Checker, sent: list[Sent]) -> None:
        super().__init__(world, "op")
        self._server = server
        self._checker = checker
        self._sent = sent
        self._revived = 0
        self._ready: dict[str, float] = {}
        self.rests = False

    def begin(self) -> None:
        self._link = Link(self, self._server, made=lambda: None)
        self.after(_LOOK, "", self._look)

    def ended(self) -> None:
        self._link.close()

    def _look(self) -> None:
        self.after(_LOOK, "", self._look)
        tables, rng = self._checker.tables, self.world.rng
        self.rests = False
        if self.world.faults.active:
            return
        asked = len(self._sent)
        self._watch_for_stalls()
        for task in list(tables.tasks.values()):
            if task.paused:
                self._ask(task.tenant, "resume", task.id)
            elif task.kind == "gate" and task.decided is UNDECIDED and task.failure is None:
                self._ask(task.tenant, "approve", task.id, approved=rng.random() < 0.8)
            elif task.kind == "signal" and task.decided is UNDECIDED and task.view is not None:
                step = task.view.spec.steps[task.place[0]]
                self._ask(task.tenant, "signal", task.view.id, name=step.signal, payload={"v": 7})
        for view in list(tables.flows.values()):
            if view.paused:
                self._ask(view.tenant, "resume", view.id)
        for schedule in list(tables.schedules.values()):
            if schedule.paused:
                self._ask(schedule.tenant, "resume", schedule.id)
            elif self.world.now > _SCHEDULES_UNTIL:
                self._ask(schedule.tenant, "cancel", schedule.id)
        self._revive()
        self.rests = self._checker.idle and asked == len(self._sent)

    def _watch_for_stalls(self) -> None:
        """In the calm, whatever could run does before long; or else a wake-up was lost."""
        tables, now = self._checker.tables, self.world.now
        now_ms, places = self.world.server_ms, self._checker.places
        could = [task for task in tables.tasks.values() if tables.could_run(task, now_ms)]
        ready = [task.id for task in could if places.is_free_for(task)]
        self._ready = {name: self._ready.get(name, now) for name in ready}
        stalled = [name for name, since in self._ready.items() if now - since > _STALL]
        if stalled:
            raise Violation("I6", f"{stalled[:8]} wait, and everything that they need is free")

    def _revive(self) -> None:
        """Some of what is dead gets another chance; there is an end to that."""
        tables, rng = self._checker.tables, self.world.rng
        if self._revived >= 6 or tables.tasks or tables.flows:
            return
        for view in list(tables.dead_flows.values())[:3]:
            self._revived += 1
            self._ask(view.tenant, "resume", view.id, **draw_resume(rng, sorted(view.spec.steps)))
        for task in list(tables.dead.values())[:3]:
            self._revived += 1
            body = {"payload": {"edited": self._revived}} if rng.random() < 0.5 else {}
            self._ask(task.tenant, "redrive", task.id, **body)

    def _ask(self, tenant: str, verb: str, target: str, **body: Any) -> None:
        sent = _command(tenant, verb, {"id": target, "by": "op"} | body)
        self._sent.append(sent)

        def done(seq: int | None, _error: object) -> None:
            if seq is not None:
                sent.acked.append(seq)

        publish = self._link.request
        publish("publish", sent.subject, sent.data, None, sent, done=done, timeout=2.0)


def _command(tenant: str, verb: str, body: dict[str, Any]) -> Sent:
    subject = f"cb.flow.{tenant}.{verb}"
    data = json.dumps(body).encode()
    return Sent(kind="command", tenant=tenant, subject=subject, data=data, body=body)
