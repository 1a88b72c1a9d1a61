"""Posters: they post tasks and workflows, good and bad, and repeat what nobody acknowledged."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.simulation.flows import CAPABILITIES, draw_flow
from tests.simulation.network import Link
from tests.simulation.sent import Sent
from tests.simulation.server import Server
from tests.simulation.world import Process, World

__all__ = ["TENANTS", "Poster", "draw_post"]

TENANTS = ("acme", "blue", "coral")

_GIVE_UP = 25.0

_BAD_TASKS: list[tuple[bytes, str]] = [
    (b"{", "body"),
    (b"", "body"),
    (b"[]", "body"),
    (b"\xff\xfe\x00", "body"),
    (b'{"priority": 11}', "priority"),
    (b'{"priority": "high"}', "priority"),
    (b'{"payload": 1, "colour": 2}', "colour"),
    (b'{"timeout": -1}', "timeout"),
    (b'{"shard": 256}', "shard"),
    (b'{"key": ""}', "key"),
    (b'{"v": 2}', "v"),
    (b'{"payload": 1e999}', "payload"),
    (b'{"payload": "\xff"}', "payload"),
    (b'{"payload": ' + b"[" * 70 + b"]" * 70 + b"}", "body"),
    (b'{"blob": {"name": "", "size": 1, "digest": ""}}', "blob.name"),
]
_BAD_FLOWS: list[tuple[dict[str, Any], str]] = [
    ({"id": "a", "capability": "plan", "after": ["a"]}, "steps"),
    ({"id": "a", "capability": "plan", "after": ["b"]}, "steps[0].after[0]"),
    ({"id": "item", "capability": "plan"}, "steps[0].id"),
    ({"id": "a", "capability": "Plan!"}, "steps[0].capability"),
    ({"id": "a", "capability": "plan", "payload": {"x": {"from": "no"}}}, "steps[0].payload.x"),
    ({"id": "a", "capability": "plan", "payload": {"x": {"from": "item"}}}, "steps[0].payload.x"),
    ({"id": "a", "capability": "plan", "each": {"from": "item"}}, "steps[0].each"),
]
_GARBAGE: list[tuple[str, bytes]] = [
    ("cb.run.acme.outcome.3", b"garbage"),
    ("cb.run.acme.outcome.3", b'{"kind": "lost", "task": "1", "attempt": 1, "epoch": 1}'),
    ("cb.run.acme.outcome.999", b"{}"),
    ("cb.run.acme.outcome.3", b'{"kind": "outcome", "result": ' + b"[" * 999 + b"]" * 999 + b"}"),
    ("cb.run.acme.post.3", b"{}"),
    ("cb.run.acme.epoch.3", b'{"kind": "epoch", "router": "mallory", "fold": 1}'),
    ("cb.run.acme.dispatch.3", b"{}"),
    ("cb.run.acme.malformed.3", b"{}"),
    ("cb.run.epoch", b"garbage"),
    ("cb.run.acme.nonsense.1", b"{}"),
    ("cb.run.acme.nonsense", b"{}"),
    ("cb.task.acme.UPPER", b"{}"),
    ("cb.task.shared.plan", b"{}"),
    ("cb.task.a*b.plan", b"{}"),
    ("cb.flow.acme.\x00", b"{}"),
]


def draw_post(rng: random.Random, number: int) -> Sent:
    """Something to post."""
    tenant = rng.choice(TENANTS)
    choice = rng.random()
    if choice < 0.05:
        data, field = rng.choice(_BAD_TASKS)
        subject = f"cb.task.{tenant}.plan"
        return _bad(tenant, subject, data, field, remembered=False)
    if choice < 0.08:
        step, field = rng.choice(_BAD_FLOWS)
        body = {"name": "bad", "steps": [step], "nonce": f"n{number}"}
        subject = f"cb.flow.{tenant}.run"
        sent = _bad(tenant, subject, json.dumps(body).encode(), field, remembered=True)
        sent.nonce = f"n{number}"
        return sent
    if choice < 0.09:
        return _bad(tenant, f"cb.flow.{tenant}.dance", b"{}", "verb", remembered=False)
    if choice < 0.11:
        subject, data = rng.choice(_GARBAGE)
        return Sent(kind="garbage", tenant=tenant, subject=subject, data=data)
    if choice < 0.15:
        return _forged(rng, tenant)
    if choice < 0.24:
        return _flow(rng, tenant, number)
    return _task(rng, tenant, number)


def _bad(tenant: str, subject: str, data: bytes, field: str, *, remembered: bool) -> Sent:
    return Sent(
        kind="bad",
        tenant=tenant,
        subject=subject,
        data=data,
        refused_for=field,
        remembered=remembered,
    )


def _forged(rng: random.Random, tenant: str) -> Sent:
    event = {
        "kind": "outcome",
        "task": str(rng.randint(1, 60)),
        "attempt": rng.randint(1, 2),
        "secret": rng.choice(("", "guessed")),
        "host": "mallory",
        "started_at": 0,
        "ended_at": 0,
        "result": "forged",
    }
    subject = f"cb.run.{tenant}.outcome.7"
    data = json.dumps(event).encode()
    return Sent(kind="outcome", tenant=tenant, subject=subject, data=data)


def _task(rng: random.Random, tenant: str, number: int) -> Sent:
    payload: dict[str, Any] = {"n": number}
    choice = rng.random()
    if choice < 0.06:
        payload["fail"] = True
    elif choice < 0.08:
        payload["poison"] = True
    elif choice < 0.12:
        payload["filler"] = "z" * 5000
    elif choice < 0.14:
        payload["pad"] = 5000
    elif choice < 0.15:
        payload["odd"] = True
    nonce = f"n{number}"
    key = f"k{rng.randint(0, 3)}" if rng.random() < 0.1 else None
    body: dict[str, Any] = {"payload": payload, "nonce": nonce, "priority": rng.randint(0, 9)}
    if key is not None:
        body["key"] = key
    return Sent(
        kind="task",
        tenant=tenant,
        subject=f"cb.task.{tenant}.{rng.choice(CAPABILITIES)}",
        data=json.dumps(body).encode(),
        payload=payload,
        nonce=nonce,
        key=key,
    )


def _flow(rng: random.Random, tenant: str, number: int) -> Sent:
    spec = draw_flow(rng)
    body = spec.document() | {"nonce": f"n{number}"}
    return Sent(
        kind="flow",
        tenant=tenant,
        subject=f"cb.flow.{tenant}.run",
        data=json.dumps(body).encode(),
        flow=spec,
        nonce=f"n{number}",
    )


class Poster(Process):
    """One client process. killed, it forgets what it was about to repeat.

    plan: (when, what). open: what is neither acknowledged nor given up.
    """

    def __init__(
        self, world: World, server: Server, name: str, plan: list[tuple[float, Sent]]
    ) -> None:
        super().__init__(world, name)
        self._server = server
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
