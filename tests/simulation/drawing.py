"""What is posted in a world: tasks, workflows, schedules, commands, good ones and bad ones."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.simulation.sent import Sent
from tests.simulation.specs import CAPABILITIES, SIGNALS, draw_flow, draw_terms
from tests.simulation.tables import Tables

__all__ = ["TENANTS", "aim", "draw_flood", "draw_post", "draw_resume"]

TENANTS = ("acme", "blue", "coral")

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
    if choice < 0.04:
        data, field = rng.choice(_BAD_TASKS)
        return _bad(tenant, f"cb.task.{tenant}.plan", data, field)
    if choice < 0.06:
        step, field = rng.choice(_BAD_FLOWS)
        body = {"name": "bad", "steps": [step], "nonce": f"n{number}"}
        sent = _bad(tenant, f"cb.flow.{tenant}.run", json.dumps(body).encode(), field)
        sent.nonce, sent.remembered = f"n{number}", True
        return sent
    if choice < 0.07:
        return _bad_command(rng, tenant)
    if choice < 0.085:
        subject, data = rng.choice(_GARBAGE)
        return Sent(kind="garbage", tenant=tenant, subject=subject, data=data)
    if choice < 0.11:
        return _forged(rng, tenant)
    if choice < 0.24:
        return _flow(rng, tenant, number)
    if choice < 0.40:
        return _command(rng, tenant, number)
    if choice < 0.42:
        return _schedule(rng, tenant, number)
    return _task(rng, tenant, number)


def _bad(tenant: str, subject: str, data: bytes, field: str) -> Sent:
    """A post to be refused, which names the field."""
    return Sent(
        kind="bad",
        tenant=tenant,
        subject=subject,
        data=data,
        refused_for=field,
        remembered=False,
    )


def _bad_command(rng: random.Random, tenant: str) -> Sent:
    subject, data = rng.choice(
        (
            (f"cb.flow.{tenant}.dance", b"{}"),
            (f"cb.flow.{tenant}.cancel", b"{"),
            (f"cb.flow.{tenant}.cancel", b'{"id": "no id"}'),
            (f"cb.flow.{tenant}.pause", b'{"id": "1", "colour": 2}'),
            (f"cb.flow.{tenant}.signal", b'{"id": "1", "payload": 1e999}'),
        )
    )
    return Sent(kind="command", tenant=tenant, subject=subject, data=data, refused_for="x")


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
        "used": {"tokens": 5},
    }
    subject = f"cb.run.{tenant}.outcome.7"
    data = json.dumps(event).encode()
    return Sent(kind="outcome", tenant=tenant, subject=subject, data=data)


def _payload(rng: random.Random, number: int) -> dict[str, Any]:
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
    elif choice < 0.25:
        payload["flaky"] = rng.randint(1, 2)
    elif choice < 0.27:
        payload |= {"fail": True, "retry_after": 2.0}
    elif choice < 0.32:
        payload["spawn"] = rng.randint(1, 3)
    return payload


def _task(rng: random.Random, tenant: str, number: int) -> Sent:
    nonce = f"n{number}"
    body: dict[str, Any] = {"payload": _payload(rng, number), "nonce": nonce}
    body |= draw_terms(rng) | {"priority": rng.randint(0, 9)}
    if rng.random() < 0.1:
        body["key"] = f"k{rng.randint(0, 3)}"
    if rng.random() < 0.1:
        body["delay"] = rng.choice((0.1, 2.0, 15.0, 50.0))
    if rng.random() < 0.05:
        body["timeout"] = rng.choice((0.1, 5.0))
    return _posted("task", tenant, rng.choice(CAPABILITIES), body)


def draw_flood(rng: random.Random, number: int) -> list[tuple[float, Sent]]:
    """(seconds after the first, post) of one tenant's flood and of another's few tasks in it.

    All of them ask for the same and nothing else, so fairness alone tells them apart.
    """
    capability = rng.choice(CAPABILITIES)
    greedy, modest = rng.sample(TENANTS, 2)
    posts: list[tuple[float, Sent]] = []
    for tenant, count, most in ((greedy, rng.randint(15, 40), 0.0), (modest, 8, 3.0)):
        for _ in range(count):
            name = number + len(posts)
            body = {"payload": {"n": name}, "nonce": f"n{name}"}
            posts.append((rng.uniform(0, most), _posted("task", tenant, capability, body)))
    return posts


def _schedule(rng: random.Random, tenant: str, number: int) -> Sent:
    body: dict[str, Any] = {"payload": _payload(rng, number), "nonce": f"n{number}"}
    body |= draw_terms(rng)
    body["cron"] = {"expression": "* * * * *", "overlap": rng.random() < 0.5}
    return _posted("schedule", tenant, rng.choice(CAPABILITIES), body)


def _posted(kind: str, tenant: str, capability: str, body: dict[str, Any]) -> Sent:
    return Sent(
        kind=kind,
        tenant=tenant,
        subject=f"cb.task.{tenant}.{capability}",
        data=json.dumps(body).encode(),
        body=body,
        nonce=body["nonce"],
        key=body.get("key"),
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


# -- commands


def _command(rng: random.Random, tenant: str, number: int) -> Sent:
    """What it is about is chosen when it is sent: see `aim`."""
    verb = rng.choices(
        ("cancel", "pause", "resume", "redrive", "approve", "signal"), (6, 3, 5, 3, 2, 2)
    )[0]
    subject = f"cb.flow.{tenant}.{verb}"
    sent = Sent(kind="command", tenant=tenant, subject=subject, data=b"", nonce=f"n{number}")
    sent.body = {"nonce": sent.nonce}
    return sent


def aim(sent: Sent, rng: random.Random, tables: Tables) -> None:
    """Choose what a command is about: mostly what it may well do something to."""
    verb = sent.subject.split(".")[-1]
    fitting: dict[str, list[Any]] = {
        "redrive": [*tables.dead.values()],
        "approve": [task for task in tables.tasks.values() if task.kind == "gate"],
        "signal": [*tables.flows.values()],
        "resume": [*tables.dead_flows.values()],
    }
    wanted = fitting.get(verb, [])
    everything = [*tables.flows.values(), *tables.tasks.values(), *tables.schedules.values()]
    if rng.random() < 0.2 or not wanted:
        wanted = everything
    body = sent.body
    if wanted and rng.random() < 0.9:
        found = rng.choice(wanted)
        body["id"] = found.id
        if rng.random() < 0.9:
            sent.tenant = found.tenant
            sent.subject = f"cb.flow.{found.tenant}.{verb}"
        if verb == "resume" and found.id in tables.dead_flows:
            body |= draw_resume(rng, sorted(tables.dead_flows[found.id].spec.steps))
    else:
        body["id"] = f"{rng.randint(1, 400)}{rng.choice(('', '.s1.0', '.undo.1'))}"
    if verb == "approve":
        body |= {"approved": rng.random() < 0.7, "by": "someone"}
    elif verb == "signal":
        body |= {"name": rng.choice((*SIGNALS, "nobody")), "payload": rng.randint(0, 9)}
    elif verb == "redrive" and rng.random() < 0.5:
        body["payload"] = rng.choice(({"again": 1}, {"again": 1, "filler": "w" * 5000}))
    sent.data = json.dumps(body).encode()


def draw_resume(rng: random.Random, steps: list[str]) -> dict[str, Any]:
    """From where a workflow is to go on, and with which inputs."""
    body: dict[str, Any] = {}
    if rng.random() < 0.35:
        body["from"] = rng.choice((*steps, "nowhere"))
    if rng.random() < 0.2:
        body["payload"] = rng.choice(({"n": 41}, {"n": 0, "pad": "e" * 5000}, [1]))
    return body
