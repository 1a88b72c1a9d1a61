"""A snapshot is the whole state: folding on from it gives what folding everything gives."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Checkpoint,
    Dispatch,
    Failure,
    Limit,
    Outcome,
    Settled,
    encode,
)
from callboard_router.desk import Policy
from callboard_router.fold import apply
from callboard_router.forked import ForkFailed, forked
from callboard_router.snapshot import (
    Picture,
    SnapshotBroken,
    compressed,
    digest,
    dump,
    expand,
    floor,
    load,
)
from callboard_router.state import State, Task
from tests.simulation.leader import Leader

LONG = "x" * 5000
FLOWS: list[list[dict[str, Any]]] = [
    [{"id": "a"}, {"id": "b", "payload": {"from": "a"}}, {"id": "c", "after": ["b"]}],
    [
        {"id": "list"},
        {"id": "each", "each": {"from": "list"}, "payload": {"from": "item"}, "at_once": 2},
        {"id": "sum", "payload": {"from": "each"}, "join": "best_effort"},
    ],
    [{"id": "x"}, {"id": "y"}, {"id": "first", "after": ["x", "y"], "join": "any"}],
    [
        {"id": "build", "compensate": {"capability": "plan", "payload": {"from": "build"}}},
        {"id": "ask", "capability": "", "gate": {"prompt": "go?"}, "after": ["build"]},
        {"id": "ship", "after": ["ask"]},
    ],
    [
        {"id": "plan"},
        {
            "id": "inner",
            "capability": "",
            "payload": {"n": {"from": "plan"}},
            "flow": {"steps": [{"id": "deep", "capability": "plan"}]},
        },
    ],
]


class Teller(Leader):
    """A leader that goes through random adventures. at: when each message was stored."""

    def __init__(self, seed: int) -> None:
        limits = {
            "global": Limit(concurrency=6, rate=50.0, burst=10.0),
            "tenant": Limit(concurrency=4, waiting=30),
            "key/llm": Limit(concurrency=2),
        }
        super().__init__(Policy(limits=limits))
        self.random = random.Random(seed)
        self.at: list[int] = []
        self.lead()
        self.host("h", "plan", slots=6)

    def store(self, subject: str, data: bytes) -> str:
        self.at.append(self.at_ms)
        return super().store(subject, data)

    def state_after(self, count: int) -> State:
        state = State()
        self.fold(state, 0, count)
        return state

    def fold(self, state: State, start: int, end: int) -> None:
        subjects = Subjects()
        for index in range(start, end):
            apply(state, subjects, index + 1, self.at[index], self.journal[index])

    def go(self, moves: int) -> None:
        for _ in range(moves):
            self.random.choice(
                [
                    self._post,
                    self._run,
                    self._end,
                    self._end,
                    self._end,
                    self._leave,
                    self._ask,
                    self._wait,
                ]
            )()
            self._turn()

    def _turn(self) -> None:
        self.turn()
        while sources := self.engine.wanted():
            for source in sources:
                data = self.journal[source.seq - 1][1]
                kind = self.journal[source.seq - 1][0].split(".")[-2]
                event: Any = msgspec.json.decode(
                    data, type=Outcome if kind == "outcome" else Settled
                )
                self.engine.fetched(source, msgspec.json.decode(event.result))
            self.turn()

    def _post(self) -> None:
        chance = self.random.random()
        options: dict[str, Any] = {"payload": self.random.choice([1, LONG, {"a": [1]}])}
        if chance < 0.2:
            options["key"] = f"k{self.random.randrange(5)}"
        elif chance < 0.4:
            options |= {"retry": {"attempts": 3, "delay": 0.1}, "nonce": f"n{chance}"}
        elif chance < 0.5:
            options |= {"budgets": ["llm"], "units": {"tokens": 5}}
        elif chance < 0.6:
            options["timeouts"] = {"queue": 2, "total": 5}
        elif chance < 0.7:
            options["cron"] = {"expression": "* * * * *"}
        elif chance < 0.75:
            options = {"payload": 1, "priority": 77}
        self.post(self.random.choice(["acme", "other"]), **options)

    def _run(self) -> None:
        body: dict[str, Any] = {"inputs": self.random.choice([{"n": 1}, {"n": LONG}])}
        if self.random.random() < 0.3:
            body |= {"at_once": 2, "timeout": 8}
        self.flow(*self.random.choice(FLOWS), **body)

    def _running(self) -> list[Task]:
        tasks = self.engine.state.tasks.values()
        return [task for task in tasks if task.life.state == "running"]

    def _leave(self) -> None:
        """A checkpoint, of some attempt."""
        for task in self._running()[:1]:
            dispatch = self.dispatched[task.id]
            value = msgspec.Raw(encode(self.random.choice([1, LONG])))
            number = task.life.checkpoints + 1
            event = Checkpoint(task.id, dispatch.attempt, dispatch.secret, "h", number, value)
            self.store(f"cb.run.{task.tenant}.checkpoint.0", encode(event))

    def _end(self) -> None:
        running = self._running()
        if not running:
            return
        task = self.random.choice(running)
        error = Failure("Broken", "planted") if self.random.random() < 0.3 else None
        result: Any = self.random.choice([[1, 2, 3], [LONG, 1]])
        used = {"tokens": 3.0} if self.random.random() < 0.5 else None
        self.finish(task.id, result, tenant=task.tenant, error=error, used=used)

    def _ask(self) -> None:
        state = self.engine.state
        names = [*state.tasks, *state.flows, *state.dead, *state.dead_flows, *state.schedules, "1"]
        verb = self.random.choice(["cancel", "pause", "resume", "redrive", "approve"])
        body: dict[str, Any] = {}
        if verb in ("redrive", "resume") and self.random.random() < 0.5:
            body["payload"] = {"n": LONG}
        self.command(verb, self.random.choice(names), **body)

    def _wait(self) -> None:
        self.now += self.random.choice([0.05, 0.5, 2.0, 70.0])
        tasks = self.engine.state.tasks.values()
        held = [(task.id, task.life.attempt) for task in tasks if task.life.state == "running"]
        self.beat(holds={"h": self.random.sample(held, len(held) // 2)})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), moves=st.integers(1, 120), part=st.floats(0, 1))
def test_folding_on_from_a_snapshot_gives_the_same_as_folding_everything(
    seed: int, moves: int, part: float
):
    teller = Teller(seed)
    teller.go(moves)
    count = len(teller.journal)
    cut = int(count * part)
    plain = teller.state_after(cut)
    data = dump(plain)
    restored = load(data)
    assert dump(restored) == data
    assert floor(restored) == floor(plain)
    for index in range(cut, count):
        teller.fold(plain, index, index + 1)
        teller.fold(restored, index, index + 1)
        plain.fresh.clear()
        restored.fresh.clear()
    assert dump(restored) == dump(plain)
    assert digest(plain) == digest(teller.state_after(count))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), moves=st.integers(1, 120), part=st.floats(0, 1))
def test_nothing_below_the_floor_is_ever_looked_up_again(seed: int, moves: int, part: float):
    teller = Teller(seed)
    teller.go(int(moves * part))
    purged = floor(teller.engine.state)
    wanted: list[int] = []
    fetched, stored = teller.engine.fetched, len(teller.journal)
    teller.engine.fetched = lambda source, value: (  # type: ignore[method-assign]
        wanted.append(source.seq),
        fetched(source, value),
    )[1]
    teller.go(moves - int(moves * part))
    for subject, data in teller.journal[stored:]:
        if ".dispatch." in subject:
            dispatch = msgspec.json.decode(data, type=Dispatch)
            found = (dispatch.post, dispatch.restored_at)
            wanted += [seq for seq in found if seq is not None]
    assert all(seq >= purged for seq in wanted)


def test_no_field_of_the_state_is_forgotten():
    left_out = {"fresh"}
    found = dataclasses.fields(State)
    assert {field.name for field in found} - left_out == {
        "seq",
        "at_ms",
        "epoch",
        "router",
        "snapshot",
        "accounts",
        "tasks",
        "flows",
        "schedules",
        "running",
        "boxes",
        "waiting",
        "dead",
        "dead_flows",
        "nonces",
        "keys",
        "merges",
        "answers",
        "to_expand",
        "unreadable",
        "finished",
        "void",
    }


def test_another_process_comes_to_the_same_digest():
    program = (
        "from tests.unit.test_snapshot import Teller\n"
        "from callboard_router.snapshot import digest\n"
        "teller = Teller(7)\n"
        "teller.go(150)\n"
        "print(digest(teller.engine.state))\n"
    )
    teller = Teller(7)
    teller.go(150)
    found = {digest(teller.engine.state)}
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, env=environment
        )
        found.add(done.stdout.decode().strip())
    assert len(found) == 1


def test_a_snapshot_that_is_not_whole_is_refused():
    teller = Teller(3)
    teller.go(40)
    picture = msgspec.msgpack.decode(compressed(teller.engine.state), type=Picture)
    assert digest(expand(picture.body, picture.digest)) == picture.digest
    for broken in (picture.body[:-1], picture.body[1:], b"", picture.body[:50] + b"xxxx"):
        with pytest.raises(SnapshotBroken):
            expand(broken, picture.digest)
    with pytest.raises(SnapshotBroken, match="another digest"):
        expand(picture.body, "0" * 64)
    with pytest.raises(SnapshotBroken, match="fold 1"):
        load(msgspec.msgpack.encode([1, *msgspec.msgpack.decode(dump(State()))[1:]]))
    with pytest.raises(SnapshotBroken):
        load(b"\x90")


async def test_a_copy_of_the_process_sees_the_moment_at_which_it_was_made():
    seen = [1]

    def look() -> bytes:
        return bytes(seen) + bytes(300_000)

    looking = asyncio.ensure_future(forked(look))
    await asyncio.sleep(0)
    seen.append(2)
    assert await looking == bytes([1]) + bytes(300_000)


async def test_a_copy_that_fails_or_dies_says_so(capfd: pytest.CaptureFixture[str]):
    def fail() -> bytes:
        raise ValueError("planted")

    def die() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    for compute in (fail, die):
        with pytest.raises(ForkFailed):
            await forked(compute)
    assert "planted" in capfd.readouterr().err


async def test_a_copy_that_nobody_waits_for_is_ended():
    def hang() -> bytes:
        signal.pause()
        return b""

    waiting = asyncio.ensure_future(forked(hang))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting  # it is reaped here
