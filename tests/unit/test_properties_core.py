"""Properties of the core that hold for whatever is posted, asked and reported, in any order.

The machine drives the real engine; the checker of the simulation, which shares no code with it,
judges everything that is stored. Nothing here depends on a clock or on chance: the examples are the
same in every run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from callboard_broker.wire import (
    Beat,
    Budget,
    Checkpoint,
    Dispatch,
    Failure,
    Limit,
    Outcome,
    Quota,
    Retry,
    Retrying,
    Terms,
    encode,
)
from callboard_router.budget import Accounts, Reserved, blocked, need_of, ready_at
from callboard_router.desk import Policy
from callboard_router.ends import backoff
from callboard_router.liveness import Timing
from callboard_router.snapshot import digest, dump, load
from tests.simulation.checker import Checker
from tests.simulation.drawing import aim, draw_post
from tests.simulation.errands import draw_budgets
from tests.simulation.fitting import MAKES
from tests.simulation.leader import Leader
from tests.simulation.refold import digests, written
from tests.simulation.scenario import journal_of
from tests.simulation.server import Stored
from tests.simulation.specs import CAPABILITIES
from tests.simulation.work import Serves, work
from tests.simulation.world import World

_LIMITS = {
    "global": Limit(concurrency=4, units={"tokens": Quota(100.0, 5.0)}),
    "tenant": Limit(concurrency=3, waiting=9),
    "tenant/blue": Limit(concurrency=2, weight=3.0, rate=5.0, burst=2.0),
    "capability/plan": Limit(concurrency=2),
    "key/openai": Limit(concurrency=1),
}
_NUMBERS = st.integers(min_value=0, max_value=2**31)


def _serves(disk: str) -> Serves:
    return Serves(
        pool="shared", capabilities=CAPABILITIES, slots=3, slow=0.0, disk=disk, timing=Timing()
    )


class CoreMachine(RuleBasedStateMachine):
    """Anything may happen to an engine that leads, and the checker agrees with it all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.checker = Checker(World(0), {}, pools={}, lost_limit=3, clock_error_ms=0)
        policy = Policy(limits=_LIMITS)
        self.leader = Leader(policy, watch=self._stored)
        self.names = 0

    def _stored(self, found: tuple[Any, ...], tag: Any) -> None:
        self.checker.stored(Stored(*found), tag)

    @initialize()
    def lead(self) -> None:
        for name, disk in (("h0", "ssd"), ("h1", "hdd")):
            self.checker.places.hosts[name] = _serves(disk)
            self.leader.host(name, *CAPABILITIES, slots=3, **MAKES[disk].declared(disk))
        self.leader.lead()

    @rule(seeds=st.lists(_NUMBERS, min_size=1, max_size=8))
    def post(self, seeds: list[int]) -> None:
        for seed in seeds:
            self._post(seed)
        self.leader.turn()

    def _post(self, seed: int) -> None:
        rng = random.Random(seed)
        sent = draw_post(rng, seed)
        if sent.kind == "command":
            if not sent.data:
                aim(sent, rng, self.checker.tables)
        elif sent.subject == "cb.run.epoch":
            return  # it is as good as a router that falls silent: see `another_router_takes_over`
        self.leader.store(sent.subject, sent.data, sent)

    @rule(seed=_NUMBERS)
    def ask(self, seed: int) -> None:
        rng = random.Random(seed)
        sent = draw_post(rng, seed)
        while sent.kind != "command" or sent.data:
            sent = draw_post(rng, rng.getrandbits(30))
        aim(sent, rng, self.checker.tables)
        self.leader.store(sent.subject, sent.data, sent)

    @rule()
    def decide(self) -> None:
        self.leader.turn()

    @rule(seconds=st.sampled_from((0.01, 0.3, 2.0, 9.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        self.leader.now += seconds
        self.leader.beat(holds=self._held())
        self.leader.turn()

    def _held(self) -> dict[str, list[tuple[str, int]]]:
        """Every second task that runs is held by some host."""
        found: dict[str, list[tuple[str, int]]] = {"h0": [], "h1": []}
        for task in self._running():
            dispatch = self.leader.dispatched[task.id]
            if (len(task.id) + task.attempt) % 2:
                host = dispatch.host or "h0"
                found[host].append((task.id, task.attempt))
                self.checker.allowed.add((task.id, task.attempt))
        return found

    def _running(self) -> list[Any]:
        tasks = self.checker.tables.tasks.values()
        return [task for task in tasks if task.state == "running"]

    @precondition(lambda self: self._running())
    @rule(numbers=st.lists(_NUMBERS, min_size=1, max_size=6))
    def report(self, numbers: list[int]) -> None:
        """Attempts end well or badly; now and then one reports that is void already."""
        for number in numbers:
            running = self._running()
            if running:
                self._report(running[number % len(running)], number // 64)
        self.leader.turn()

    def _report(self, task: Any, number: int) -> None:
        attempt = next(iter(task.void)) if task.void and number % 5 == 0 else task.attempt
        proof = task.void.get(attempt, self.leader.dispatched[task.id].secret)
        error = Failure("Boom", "no", final=number % 7 == 0) if number % 3 == 0 else None
        result = msgspec.Raw(encode(work({"number": number % 50, "list": 2})))
        used = {"tokens": float(number % 90)} if number % 4 == 0 else {}
        found = msgspec.UNSET if error else result
        event = Outcome(task.id, attempt, proof, "h0", 0, 0, found, error=error, used=used)
        self.leader.store(f"cb.run.{task.tenant}.outcome.1", encode(event))

    @precondition(lambda self: self._running())
    @rule(number=_NUMBERS)
    def leave_a_checkpoint(self, number: int) -> None:
        """Of an attempt that runs, or of one that is void; now and then it is a repeat."""
        running = self._running()
        task = running[number % len(running)]
        attempt = next(iter(task.void)) if task.void and number % 5 == 0 else task.attempt
        proof = task.void.get(attempt, self.leader.dispatched[task.id].secret)
        at = task.checkpoints + number % 3
        state = msgspec.Raw(encode({"n": number, "pad": "x" * 5_000 * (number % 2)}))
        event = Checkpoint(task.id, attempt, proof, "h0", max(1, at), state)
        self.leader.store(f"cb.run.{task.tenant}.checkpoint.1", encode(event))

    @rule()
    def a_host_dies(self) -> None:
        self.leader.beat(holds=self._held())
        self.leader.engine.heard(Beat("h0", "h0-1", "shared", gone=True), at=self.leader.now)
        self.leader.turn()
        self.leader.beat()

    @rule(seed=_NUMBERS)
    def budgets_change(self, seed: int) -> None:
        self.leader.engine.set_budgets(draw_budgets(random.Random(seed)), "me", lambda _ok: None)

    @rule()
    def a_write_is_lost_sight_of(self) -> None:
        self.leader.engine.unresolved(self.leader.now)
        self.leader.turn()

    @rule()
    def another_router_takes_over(self) -> None:
        """From a snapshot of this moment, which says the very same."""
        state = self.leader.engine.state
        found = load(dump(state))
        assert digest(found) == digest(state)
        self.names += 1
        self.leader.succeed_by(f"r{self.names}", found)

    @invariant()
    def nothing_is_under_way_for_ever(self) -> None:
        """What is proposed is stored at once here, so nothing stays reserved."""
        assert not self.leader.engine.desk.proposals.reserved.counts


def test_the_checker_agrees_with_the_core_whatever_happens():
    run_state_machine_as_test(
        CoreMachine,
        settings=settings(
            max_examples=150,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_same_prefix_of_a_journal_gives_the_same_state_in_another_process(tmp_path: Path):
    for seed in (1, 5):
        file = tmp_path / f"{seed}.journal"
        file.write_text(written(journal_of(seed)))
        here = digests(file.read_text(), every=10)
        for hashes in ("0", "4711"):
            there = subprocess.run(
                [sys.executable, "-m", "tests.simulation.refold", str(file), "10"],
                env=os.environ | {"PYTHONHASHSEED": hashes},
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                check=True,
            )
            assert there.stdout.split() == here
        assert len(set(here)) == len(here) > 20


def test_tenants_that_have_the_same_in_flight_take_turns():
    leader = Leader(Policy(limits={"global": Limit(concurrency=1)}))
    leader.host("h", "plan", slots=9)
    leader.lead()
    for tenant in ("acme", "blue", "coral"):
        for _ in range(3):
            leader.post(tenant)
    order = []
    for _ in range(9):
        leader.turn()
        (task,) = [t for t in leader.engine.state.tasks.values() if t.life.state == "running"]
        order.append(task.tenant)
        leader.finish(task.id, tenant=task.tenant)
    assert [len(set(order[start : start + 3])) for start in (0, 3, 6)] == [3, 3, 3]


@settings(deadline=None, derandomize=True)
@given(
    delay=st.floats(0, 1000),
    factor=st.floats(1, 100),
    most=st.floats(0, 10_000),
    errors=st.integers(0, 100_000),
)
def test_a_backoff_never_waits_longer_than_the_policy_says(
    delay: float, factor: float, most: float, errors: int
):
    retry = Retry(attempts=9, delay=delay, factor=factor, max_delay=most)
    waits = [backoff(retry, f"task-{number}", 1, errors) for number in range(40)]
    assert all(0 <= wait <= most for wait in waits)
    if errors == 0:
        assert max(waits) <= delay


def test_backoffs_grow_and_are_spread_over_all_of_their_time():
    retry = Retry(attempts=9, delay=1.0, factor=2.0, max_delay=60.0)
    for errors, most in ((0, 1.0), (1, 2.0), (4, 16.0), (6, 60.0), (60, 60.0)):
        waits = sorted(backoff(retry, f"{number}", 1, errors) for number in range(400))
        assert waits[0] < 0.05 * most
        assert waits[-1] > 0.95 * most
        assert 0.4 * most < sum(waits) / 400 < 0.6 * most
    assert backoff(retry, "7", 2, 3) == backoff(retry, "7", 2, 3) != backoff(retry, "7", 3, 3)


def test_a_retry_comes_after_its_backoff_and_not_before_the_error_allows_it():
    leader = Leader(Policy(limits={"global": Limit(concurrency=1)}))
    leader.host("h", "plan", slots=9)
    leader.lead()
    retry = Retry(attempts=4, delay=100.0, factor=3.0, max_delay=500.0)
    task = leader.post(retry=msgspec.to_builtins(retry))
    leader.turn()
    for attempt, errors in ((1, 0), (2, 1), (3, 2)):
        leader.finish(task, error=Failure("Boom", "no", retry_after=150.0 if errors else None))
        (event,) = [found for found in leader.turn() if isinstance(found, Retrying)]
        seconds = max(backoff(retry, task, attempt, errors), 150.0 if errors else 0)
        assert event.at == leader.at_ms + int(1000 * seconds)
        leader.now += seconds - 0.01
        leader.beat()
        assert not [found for found in leader.turn() if isinstance(found, Dispatch)]
        leader.now += 0.02
        leader.beat()
        assert [found.attempt for found in leader.turn() if isinstance(found, Dispatch)] == [
            attempt + 1
        ]
    leader.finish(task, error=Failure("Boom", "no"))
    assert [type(found).__name__ for found in leader.turn()] == ["Settled"]


def test_a_task_that_is_lost_with_three_hosts_is_not_given_to_a_fourth():
    leader = Leader(Policy(limits={"global": Limit(concurrency=1)}, lost_limit=3))
    leader.host("h", "plan", slots=9)
    leader.lead()
    task = leader.post()
    for attempt in (1, 2, 3):
        (event,) = [found for found in leader.turn() if isinstance(found, Dispatch)]
        assert event.attempt == attempt
        leader.beat(holds={"h": [(task, attempt)]})
        leader.engine.heard(Beat("h", "h-1", "shared", gone=True), at=leader.now)
        lost = leader.turn()[:1]
        assert [type(found).__name__ for found in lost] == ["Lost"]
        leader.beat()
    assert task in leader.engine.state.dead


@settings(deadline=None, derandomize=True)
@given(
    rate=st.sampled_from((0.5, 3.0, 40.0)),
    burst=st.sampled_from((1.0, 2.5, 10.0)),
    steps=st.lists(st.integers(0, 4000), max_size=80),
)
def test_no_stretch_of_time_has_more_dispatches_than_rate_and_burst_allow(
    rate: float, burst: float, steps: list[int]
):
    accounts, reserved = Accounts(), Reserved()
    accounts.change(Budget(1, base={"tenant/acme": Limit(rate=rate, burst=burst)}), 0)
    need, now, taken = need_of("acme", "plan", None), 0, list[int]()
    for step in steps:
        now += step
        reason = blocked(accounts, reserved, need, now)
        if reason is None:
            accounts.take(need, now)
            taken.append(now)
        else:
            due = ready_at(accounts, reason, now, need=need, reserved=reserved)
            assert due is not None
            assert blocked(accounts, reserved, need, due) is None
            assert due == now + 1 or blocked(accounts, reserved, need, due - 2) is not None
    for first, begin in enumerate(taken):
        for last, end in enumerate(taken[first:], first):
            assert last - first + 1 <= burst + rate * (end - begin) / 1000 + 1e-5


@settings(deadline=None, derandomize=True)
@given(
    used=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 3000)), max_size=60),
    lost=st.integers(1, 7),
)
def test_units_that_were_used_are_the_units_that_were_charged(
    used: list[tuple[int, int]], lost: int
):
    accounts, reserved = Accounts(), Reserved()
    quota = {"tokens": Quota(100.0, 10.0)}
    accounts.change(Budget(1, base={"global": Limit(units=quota)}), 0)
    need = need_of("acme", "plan", Terms(units={"tokens": 40.0}))
    now, charged = 0, 0.0
    for number, (amount, step) in enumerate(used):
        now += step
        charged = max(0.0, charged - step / 100)
        if blocked(accounts, reserved, need, now) is not None:
            assert charged + 40 > 100
            continue
        assert charged + 40 <= 100 + 1e-5
        accounts.take(need, now)
        if number % lost:
            accounts.give_back(need, {"tokens": float(amount)}, now)
            charged += amount
        else:
            accounts.give_back(need, None, now)
            charged += 40
