"""Budgets and the fair queue in the policy: nothing beyond the limits, and nobody starved."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from msgspec import Raw

from callboard_broker.wire import Beat, Budget, Dispatch, Failure, Limit, Settled
from callboard_router.desk import Policy
from callboard_router.engine import ROUTERS
from tests.simulation.leader import Leader


def at_once(**most: int) -> dict[str, Limit]:
    """Budgets that limit nothing but concurrency; `__` stands for `/`."""
    return {key.replace("__", "/"): Limit(concurrency=number) for key, number in most.items()}


LIMITS = at_once(**{"global": 4, "tenant": 3, "tenant__blue": 1})


@pytest.fixture
def leader() -> Leader:
    found = Leader(Policy(limits=LIMITS)).lead()
    found.host("h", "plan", "join", slots=100)
    return found


def running(leader: Leader) -> Counter[str]:
    tasks = leader.engine.state.tasks.values()
    return Counter(task.tenant for task in tasks if task.life.state == "running")


def test_nothing_is_dispatched_before_the_limits_stand_in_the_journal():
    leader = Leader(Policy(limits=LIMITS))
    leader.host("h", "plan", slots=9)
    leader.post()
    leader.lead()
    kinds = [subject.split(".")[-2] for subject, _ in leader.journal]
    assert kinds == ["acme", "run", "budget", "shared"]


def test_no_tenant_and_not_all_together_exceed_their_limits(leader: Leader):
    for tenant in ("acme", "blue", "coral"):
        for _ in range(5):
            leader.post(tenant)
    leader.turn()
    assert running(leader).total() == 4
    assert all(running(leader)[tenant] <= most for tenant, most in (("acme", 3), ("blue", 1)))


def test_an_outcome_makes_room_for_the_next(leader: Leader):
    names = [leader.post("blue") for _ in range(2)]
    leader.turn()
    assert running(leader) == {"blue": 1}
    leader.finish(names[0], tenant="blue")
    events = leader.turn()
    assert [event.task for event in events if isinstance(event, Dispatch)] == [names[1]]


def test_what_is_under_way_is_not_dispatched_again_and_holds_its_tokens(leader: Leader):
    for _ in range(9):
        leader.post()
    first = leader.engine.decide(leader.now, leader.at_ms, timers=True)
    assert len(first) == 3
    assert leader.engine.decide(leader.now, leader.at_ms, timers=True) == []


def test_after_a_decrease_nothing_is_dispatched_until_the_use_fits(leader: Leader):
    names = [leader.post() for _ in range(5)]
    leader.turn()
    lower = at_once(**{"global": 1, "tenant": 1})
    leader.engine.desk.policy = replace(leader.engine.desk.policy, limits=lower)
    events = leader.turn()
    assert [type(event) for event in events] == [Budget]
    for name in names[:2]:
        leader.finish(name)
        assert leader.turn() == []
    leader.finish(names[2])
    assert len(leader.turn()) == 1


def test_a_tenant_that_floods_does_not_delay_another(leader: Leader):
    for _ in range(50):
        leader.post("acme")
    late = leader.post("coral")
    leader.turn()
    assert running(leader) == {"acme": 3, "coral": 1}
    assert late in leader.dispatched


def test_the_tenant_with_less_in_flight_comes_first(leader: Leader):
    floods = [leader.post("acme") for _ in range(9)]
    leader.turn()
    for _ in range(3):
        leader.post("coral")
    leader.turn()
    assert running(leader) == {"acme": 3, "coral": 1}
    leader.finish(floods[0])
    leader.turn()
    assert running(leader) == {"acme": 2, "coral": 2}


def test_inside_a_tenant_priority_goes_first_and_then_age(leader: Leader):
    low, old, new = (leader.post("blue", priority=p) for p in (1, 5, 5))
    order = []
    for _ in range(3):
        leader.turn()
        order.append(next(reversed(leader.dispatched)))
        leader.finish(order[-1], tenant="blue")
    assert order == [old, new, low]


def test_a_queue_gets_no_more_than_its_hosts_can_hold():
    leader = Leader(Policy(limits=at_once(**{"global": 50, "tenant": 50}))).lead()
    leader.host("h", "plan", slots=2)
    for _ in range(9):
        leader.post()
    other = leader.post(capability="join")
    assert len(leader.turn()) == 2
    leader.host("g", "join", slots=1)
    leader.turn()
    assert other in leader.dispatched, "one full queue does not block another"


def test_a_silent_host_gets_nothing(leader: Leader):
    leader.now += 4
    leader.engine.heard(Beat("r", "r", ROUTERS), at=leader.now)
    name = leader.post()
    leader.turn()
    assert name not in leader.dispatched
    leader.beat()
    leader.turn()
    assert name in leader.dispatched


def test_a_task_that_failed_is_settled_with_its_error(leader: Leader):
    name = leader.post()
    leader.turn()
    leader.finish(name, error=Failure("Boom", "no"))
    settled = leader.turn()
    assert settled == [Settled(name, leader.engine.state.epoch, "failed", Failure("Boom", "no"))]


def test_values_of_earlier_steps_are_put_into_the_payload(leader: Leader):
    flow = leader.flow(
        {"id": "a", "payload": {"n": {"from": "inputs", "path": "n"}}},
        {"id": "b", "each": {"from": "a", "path": "files"}, "payload": [{"from": "item"}]},
        {"id": "c", "payload": {"all": {"from": "b"}}},
        inputs={"n": 7},
        output={"out": {"from": "c"}},
    )
    leader.turn()
    assert leader.payload(f"{flow}.a.0") == {"n": 7}
    leader.finish(f"{flow}.a.0", {"files": ["x", "y"]})
    leader.turn()
    assert leader.payload(f"{flow}.b.1") == ["y"]
    leader.finish(f"{flow}.b.1", "Y")
    leader.finish(f"{flow}.b.0", "X")
    leader.turn()
    assert leader.payload(f"{flow}.c.0") == {"all": ["X", "Y"]}
    leader.finish(f"{flow}.c.0", "done")
    settled = leader.turn()[-1]
    assert isinstance(settled, Settled)
    assert isinstance(settled.result, Raw)
    assert (settled.state, bytes(settled.result)) == ("succeeded", b'{"out":"done"}')
    assert not leader.engine.desk.agenda.values._flows, "its values are dropped"


def test_a_long_result_is_fetched_before_what_needs_it_is_dispatched(leader: Leader):
    flow = leader.flow({"id": "a"}, {"id": "b", "payload": {"from": "a", "path": "n"}})
    leader.turn()
    leader.finish(f"{flow}.a.0", {"n": 3, "pad": "x" * 5000})
    assert leader.turn() == []
    (source,) = leader.engine.wanted()
    assert leader.engine.wanted() == []
    leader.engine.fetched(source, {"n": 3})
    leader.turn()
    assert leader.payload(f"{flow}.b.0") == 3


def test_a_value_that_is_not_to_be_had_fails_what_needs_it(leader: Leader):
    flow = leader.flow({"id": "a"}, {"id": "b", "payload": {"from": "a"}})
    leader.turn()
    leader.finish(f"{flow}.a.0", "x" * 5000)
    leader.turn()
    (source,) = leader.engine.wanted()
    leader.engine.fetched(source, Failure("LookupError", "purged"))
    states = [(e.task, e.state) for e in leader.turn() if isinstance(e, Settled)]
    assert states == [(f"{flow}.b.0", "failed"), (flow, "failed")]


@pytest.mark.parametrize("raw", [b"1e999", b'"\xff"'])
def test_a_result_that_cannot_be_decoded_fails_what_needs_it_and_nothing_else(
    leader: Leader, raw: bytes
):
    flow = leader.flow({"id": "a"}, {"id": "b", "payload": {"from": "a"}}, {"id": "c"})
    leader.turn()
    leader.finish(f"{flow}.a.0", raw=raw)
    leader.finish(f"{flow}.c.0")
    settled = [event for event in leader.turn() if isinstance(event, Settled)]
    assert [(event.task, event.error and event.error.type) for event in settled] == [
        (f"{flow}.b.0", "BadInput"),
        (flow, "BadInput"),
    ]


def test_a_path_that_is_not_there_fails_the_step_and_says_what_is(leader: Leader):
    flow = leader.flow({"id": "a"}, {"id": "b", "payload": {"from": "a", "path": "x.y"}})
    leader.turn()
    leader.finish(f"{flow}.a.0", {"z": 1})
    settled = next(event for event in leader.turn() if isinstance(event, Settled))
    assert settled.error is not None
    assert settled.error.message == "a has no 'x': it holds an object with z"


def test_tasks_that_ask_for_certain_agents_wait_apart_and_go_when_these_have_room(leader: Leader):
    leader.engine.desk.policy = replace(
        leader.engine.desk.policy, limits=at_once(**{"global": 50, "tenant": 50})
    )
    gpu = {"needs": {"labels": {"gpu": "yes"}}}
    picky = [leader.post(**gpu) for _ in range(3)]
    alone = [leader.post(needs={"avoid": ["h"]}) for _ in range(3)]
    plain = [leader.post() for _ in range(3)]
    leader.turn()
    assert set(leader.dispatched) == set(plain)
    leader.host("g", "plan", slots=2, labels={"gpu": "yes"})
    waiting = {*picky, *alone}
    while waiting:
        leader.now += 0.5
        leader.beat()
        leader.turn()
        done = waiting & set(leader.dispatched)
        assert 1 <= len(done) <= 4, "what has ended since the last beat makes room as well"
        assert {leader.dispatched[name].host for name in done} == {"g"}
        for name in done:
            leader.finish(name)
        waiting -= done
