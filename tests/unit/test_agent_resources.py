"""A host promises its attempts no more CPU and memory than it has, and every lane gets its turn."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_agents import agent
from callboard_agents.admission import Admission, Measured
from callboard_agents.allocations import Allocations, Need
from callboard_agents.resources import Claim, Resources

SHARE = Need.of(4.0, 8192)
NEEDS = st.builds(Need.of, st.floats(0, 5), st.floats(0, 9000))


@given(st.lists(st.tuples(st.booleans(), NEEDS), max_size=60))
def test_promises_never_exceed_the_share_and_all_come_back(steps: list[tuple[bool, Need]]):
    allocations = Allocations(SHARE)
    held: list[Need] = []
    for starts, need in steps:
        if starts and allocations.room(need) > 0:
            allocations.reserve(need)
            held.append(need)
        elif starts:
            with pytest.raises(ValueError, match="does not fit"):
                allocations.reserve(need)
        elif held:
            allocations.release(held.pop(0))
        assert allocations.taken.at_most(SHARE) == allocations.taken
        assert allocations.taken == sum_of(held)
    for need in held:
        allocations.release(need)
    assert allocations.taken == Need()


def sum_of(needs: list[Need]) -> Need:
    total = Need()
    for need in needs:
        total = total.plus(need)
    return total


def test_what_was_never_promised_is_not_taken_back():
    with pytest.raises(ValueError, match="was not promised"):
        Allocations(SHARE).release(Need.of(1, 1))


def measured(free_mb: float = 8192, load: float = 0.0) -> Measured:
    return Measured(free_mb=free_mb, total_mb=8192, load=load)


def test_little_memory_closes_the_door_until_there_is_clearly_more():
    gate = Admission()
    states = []
    for free in (1000, 300, 250, 260, 380, 390, 300):
        gate.look(measured(free))
        states.append(gate.memory_open)
    assert states == [True, True, False, False, False, True, True]


def test_a_busy_cpu_closes_only_for_agents_that_declare_cpu():
    gate = Admission()
    for _ in range(10):
        gate.look(measured(load=1.0))
    assert gate.room(Need.of(0.1, None), Need(), idle=False) == 0
    assert gate.room(Need.of(0.1, None), Need(), idle=True) == 1
    assert gate.room(Need(), Need(), idle=False) is None
    gate.look(measured(load=0.9))
    assert not gate.cpu_open
    for _ in range(5):
        gate.look(measured(load=0.5))
    assert gate.cpu_open


def test_what_was_promised_since_the_last_look_counts_as_gone():
    gate = Admission()
    gate.look(measured(free_mb=2256))
    need = Need.of(None, 500)
    assert gate.room(need, Need(), idle=False) == 4
    assert gate.room(need, need.times(3), idle=False) == 1


def claims(cpus: float, **needs: float) -> tuple[Resources, dict[str, Claim]]:
    resources = Resources(cpus, 1024.0, changed=lambda: None)
    made = {}
    for name, cpu in needs.items():

        async def handler(_payload: object) -> None: ...

        made[name] = resources.claim(agent(name, cpu=cpu or None)(handler))
    return resources, made


def slots(lanes: dict[str, Claim]) -> dict[str, int]:
    return dict.fromkeys(lanes, 100)


@given(
    cpus=st.floats(0.5, 16),
    needs=st.lists(st.floats(0.1, 4), min_size=1, max_size=6),
    steps=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40),
)
def test_what_is_offered_could_all_start_at_once(
    cpus: float, needs: list[float], steps: list[tuple[int, bool]]
):
    names = {f"lane{number}": cpu for number, cpu in enumerate(needs)}

    async def work() -> None:
        resources, lanes = claims(cpus, **names)
        order = list(lanes.values())
        for number, starts in steps:
            claim = order[number % len(order)]
            if starts and claim.room() > 0:
                claim.take()
            elif not starts and claim.used:
                claim.give_back()
            resources.divide(slots(lanes), now=1e12)
            promised = sum_of([claim.need.times(claim.offered) for claim in order])
            assert promised.at_most(resources.share) == promised
            assert resources.taken.at_most(resources.share) == resources.taken

    asyncio.run(work())


def test_a_lane_that_uses_all_of_its_part_gets_what_the_others_leave():
    resources, lanes = claims(8, busy=1.0, idle=1.0)
    first = resources.divide(slots(lanes), now=1e12)
    assert first == {"busy": 4, "idle": 4}
    for _ in range(4):
        lanes["busy"].take()
    assert resources.divide(slots(lanes), now=1e12) == {"busy": 7, "idle": 1}


def test_an_agent_that_declares_nothing_offers_all_of_its_slots():
    resources, lanes = claims(1, plain=0.0, heavy=1.0)
    lanes["heavy"].take()
    assert resources.divide(slots(lanes), now=1e12) == {"plain": 100, "heavy": 1}
    assert lanes["plain"].room() > 100


def test_an_agent_that_needs_more_than_the_share_gets_all_of_it():
    _, lanes = claims(1, huge=16.0)
    assert lanes["huge"].room() == 1
    lanes["huge"].take()
    assert lanes["huge"].room() == 0


async def test_at_the_end_of_a_long_attempt_a_lane_that_had_nothing_comes_first():
    resources, lanes = claims(1, long=1.0, late=1.0)
    long, late = lanes["long"], lanes["late"]
    called = asyncio.Event()
    long.take()
    assert resources.divide(slots(lanes), now=1e12) == {"long": 1, "late": 0}
    long.freed = called.set
    long.give_back()
    resources.divide(slots(lanes), now=1e12)
    assert (long.room(), late.room()) == (0, 1)
    called.clear()
    await called.wait()  # nobody wanted the other lane: its moment has passed
    assert (long.room(), late.room()) == (1, 1)
