"""How many processes a supervisor keeps, by what waits, on a clock that the tests turn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard_agents.scaling import Observation, QueueSeen, Scaler, ScalingPolicy
from callboard_broker.errors import BadInput

SLOTS = 4


@dataclass
class Machine:
    """Tasks of one second arrive at a rate; each process runs four at once."""

    scaler: Scaler
    arrivals: Callable[[int], int]
    hosts: int = 1
    second: int = 0
    backlog: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    free_mb: float = math.inf

    def run(self, seconds: int) -> list[int]:
        for _ in range(seconds):
            self.step()
        return self.counts[-seconds:]

    def step(self) -> None:
        self.second += 1
        self.backlog += [self.second] * self.arrivals(self.second)
        slots = SLOTS * self.hosts
        running, self.backlog = len(self.backlog[:slots]), self.backlog[slots:]
        oldest = 1000 * (self.second - self.backlog[0]) if self.backlog else 0
        queue = QueueSeen(
            waiting=len(self.backlog),
            oldest_ms=oldest,
            running=running,
            slots=slots,
            hosts=self.hosts,
        )
        seen = Observation(queues=(queue,), cpus=8, host_mb=100, free_mb=self.free_mb)
        self.hosts = self.scaler.decide(seen, self.hosts, float(self.second))
        self.counts.append(self.hosts)


def policy(**given: float) -> ScalingPolicy:
    return ScalingPolicy(**({"least": 1, "most": 8} | given))  # type: ignore[arg-type]


def test_a_burst_grows_and_quiet_shrinks_slowly_to_the_least():
    machine = Machine(Scaler(policy()), lambda second: 24 if second <= 20 else 0)
    assert max(machine.run(20)) >= 6
    quiet = machine.run(120)
    assert quiet[:25] == [quiet[0]] * 25
    assert quiet[-1] == 1
    assert all(before - after in (0, 1) for before, after in itertools.pairwise(quiet))


def test_the_last_process_ends_when_nothing_has_run_for_long_and_a_task_brings_one_back():
    arrivals = {1: 1, 200: 1}
    machine = Machine(Scaler(policy(least=0)), lambda second: arrivals.get(second, 0))
    counts = machine.run(199)
    assert counts[58] == 1
    assert counts[65] == 0
    assert counts[-1] == 0
    assert machine.run(1) == [1]


def test_memory_that_is_not_there_is_not_planned_with():
    machine = Machine(Scaler(policy()), lambda _: 24, free_mb=256 + 250)
    machine.free_mb = 256 + 99
    assert max(machine.run(30)) == 1
    machine.free_mb = 256 + 101
    assert machine.run(1) == [2]


def seen(**given: float) -> Observation:
    queue = {"waiting": 10, "oldest_ms": 5000, "running": 4, "slots": 4, "hosts": 1}
    machine = {name: given.pop(name) for name in list(given) if name not in queue}
    return Observation(queues=(QueueSeen(**(queue | given)),), **machine)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "grows"),
    [
        ({}, True),
        ({"running": 1}, False),  # slots are free: a budget holds the tasks up
        ({"running": 1, "cores": 0.95, "cpus": 4}, True),  # one core is all that a process gets
        ({"oldest_ms": 500}, False),
        ({"load": 0.95}, False),
        ({"starting": 1}, False),
        ({"slots": 0, "hosts": 0, "running": 0}, False),
    ],
)
def test_it_grows_only_where_another_process_would_help(what: dict[str, float], *, grows: bool):
    assert (Scaler(policy()).decide(seen(**what), 1, 0.0) > 1) is grows


def test_without_an_answer_it_stays_as_it_is_and_quiet_is_counted_anew():
    scaler = Scaler(policy(quiet_seconds=10))
    nothing = seen(waiting=0, oldest_ms=0, running=0)
    assert [scaler.decide(nothing, 4, now) for now in (0.0, 9.0)] == [4, 4]
    assert scaler.decide(None, 4, 9.5) == 4
    assert [scaler.decide(nothing, 4, now) for now in (10.0, 19.0, 20.0)] == [4, 4, 3]


queues = st.builds(
    QueueSeen,
    waiting=st.integers(0, 10_000),
    oldest_ms=st.integers(0, 100_000),
    running=st.integers(0, 1000),
    slots=st.integers(0, 1000),
    hosts=st.integers(0, 20),
)
observations = st.builds(
    Observation,
    queues=st.lists(queues, max_size=4).map(tuple),
    starting=st.integers(0, 1),
    cpus=st.floats(0.5, 64),
    load=st.floats(0, 1),
    free_mb=st.floats(0, 1e5),
    cores=st.floats(0, 2),
    host_mb=st.floats(0, 1000),
)


@given(
    st.lists(st.tuples(st.none() | observations, st.floats(0, 60)), max_size=50),
    st.integers(0, 3),
    st.integers(3, 9),
)
def test_it_never_leaves_its_bounds_nor_grows_more_than_twofold_at_once(
    story: list[tuple[Observation | None, float]], least: int, most: int
):
    scaler = Scaler(policy(least=least, most=most))
    hosts, now = least, 0.0
    for observation, passed in story:
        now += passed
        wanted = scaler.decide(observation, hosts, now)
        assert least <= wanted <= most
        assert hosts - 1 <= wanted <= max(2 * hosts, 1)
        hosts = wanted


@settings(max_examples=50)
@given(st.integers(0, 32))
def test_a_steady_load_comes_to_rest(rate: int):
    machine = Machine(Scaler(policy()), lambda _: rate)
    machine.run(300)
    rest = machine.run(600)
    assert set(rest) == {rest[0]}
    assert SLOTS * rest[0] >= rate or rest[0] == 8


@pytest.mark.parametrize("wrong", [{"least": 9}, {"most": 0, "least": 0}, {"quiet_seconds": -1}])
def test_bounds_that_cannot_hold_are_refused_by_name(wrong: dict[str, float]):
    with pytest.raises(BadInput):
        policy(**wrong)


def test_a_process_so_small_that_its_share_of_no_memory_is_beyond_counting_adds_none():
    tiny = seen(waiting=50, host_mb=5e-324, free_mb=0.0)
    assert Scaler(ScalingPolicy(least=1, most=8)).decide(tiny, 1, 0.0) == 1


def test_processes_that_nobody_hears_get_another_one_beside_them():
    scaler = Scaler(policy())
    silent = Observation(queues=(QueueSeen(waiting=1, oldest_ms=2_000),))
    heard = Observation(queues=(QueueSeen(waiting=1, oldest_ms=2_000, slots=4, hosts=1),))
    assert [scaler.decide(silent, 1, float(second)) for second in range(4)] == [1, 1, 1, 2]
    assert scaler.decide(heard, 2, 4.0) == 2
    assert scaler.decide(silent, 2, 5.0) == 2
