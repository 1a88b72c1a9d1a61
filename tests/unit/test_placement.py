"""Where a task goes: the shared queue by default, a mailbox where its requirements single out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard_broker.wire import Beat, FlowRun, Needs, Offer, Step, encode
from callboard_config import load_settings
from callboard_router.flow import Result
from callboard_router.matching import fits, shortage
from callboard_router.performance import MOST_REMEMBERED, Performance
from callboard_router.placement import MOST_TOLD, Blocked, Placement, place
from callboard_router.routing import Routing, Rule, Weights, routing_from
from callboard_router.state import Task
from callboard_router.workflow import begin
from tests.desks import Bench, offer

REVIEW = ("shared", "review")


@pytest.fixture
def bench() -> Bench:
    """Two hosts review; only `g` knows SQL."""
    found = Bench()
    found.beat("g", offer(specialization=["sql"], labels={"zone": "eu"}, version="2.0"))
    found.beat("h", offer(labels={"zone": "us"}, version="1.5"))
    return found


def placed(bench: Bench, task: Task) -> tuple[tuple[str, str], str | None]:
    found = place(bench.desk, task)
    assert isinstance(found, Placement), found
    return found.queue, found.host


def blocked(bench: Bench, task: Task) -> tuple[str, str]:
    found = place(bench.desk, task)
    assert isinstance(found, Blocked), found
    return found.on, str(found.why["reason"])


# -- the shared queue


def test_a_task_without_requirements_goes_to_its_shared_queue(bench: Bench):
    assert placed(bench, bench.task()) == (REVIEW, None)


def test_what_a_host_yet_unknown_might_not_meet_never_goes_to_the_shared_queue(bench: Bench):
    """It would pull before its first beat is read."""
    task = bench.task(needs={"version": ">=1"})
    queue, host = placed(bench, task)
    assert queue == REVIEW
    assert host in ("g", "h")


def test_a_queue_holds_no_more_than_its_slots_and_what_it_ends_meanwhile(bench: Bench):
    bench.desk.state.running[REVIEW] = 7
    assert placed(bench, bench.task()) == (REVIEW, None)
    bench.desk.proposals.under_way[REVIEW] = 1
    assert blocked(bench, bench.task()) == ("slots/shared/review", "every slot is taken")
    bench.desk.allowance[REVIEW] = 1
    assert placed(bench, bench.task()) == (REVIEW, None)


def test_nothing_is_sent_to_a_queue_before_its_durable_exists(bench: Bench):
    bench.desk.ready.clear()
    assert blocked(bench, bench.task()) == ("slots/shared/review", "the queue is being made")
    assert placed(bench, bench.task(needs={"specialization": ["sql"]})) == (REVIEW, "g")


def test_a_task_that_nobody_serves_waits_for_agents(bench: Bench):
    assert blocked(bench, bench.task("plan"))[0] == "agents/shared/plan"
    bench.beat("k", offer("plan"))
    assert placed(bench, bench.task("plan")) == (("shared", "plan"), None)


def test_a_tenant_with_a_pool_of_its_own_gets_nothing_from_another():
    bench = Bench(pools={"acme": "gpu"})
    bench.beat("h", offer())
    assert blocked(bench, bench.task())[0] == "agents/gpu/review"
    assert placed(bench, bench.task(tenant="blue")) == (REVIEW, None)
    bench.beat("h", offer(), pool="gpu")
    assert placed(bench, bench.task()) == (("gpu", "review"), None)


# -- hierarchy


def test_a_task_goes_to_its_own_queue_or_the_nearest_above_and_never_below(bench: Bench):
    bench.beat("k", offer("review.python.django"))
    assert placed(bench, bench.task("review.python")) == (REVIEW, None)
    bench.beat("p", offer("review.python"))
    assert placed(bench, bench.task("review.python")) == (("shared", "review.python"), None)
    assert placed(bench, bench.task("review.python.flask"))[0] == ("shared", "review.python")
    assert placed(bench, bench.task("review")) == (REVIEW, None)
    assert blocked(bench, bench.task("reviews"))[0] == "agents/shared/reviews"


def test_hosts_that_are_drained_do_not_keep_tasks_from_an_ancestor(bench: Bench):
    bench.beat("p", offer("review.python", 0))
    assert placed(bench, bench.task("review.python")) == (REVIEW, None)
    bench.wait(4.0)
    bench.beat("p", offer("review.python", 0))
    assert blocked(bench, bench.task("review.python"))[0] == "slots/shared/review.python"


# -- one host


@pytest.mark.parametrize(
    ("needs", "host"),
    [
        ({"specialization": ["sql"]}, "g"),
        ({"version": "<2"}, "h"),
        ({"labels": {"zone": "us"}}, "h"),
        ({"stay_with": "h"}, "h"),
        ({"avoid": ["h"]}, "g"),
    ],
)
def test_requirements_that_single_a_host_out_lead_to_its_mailbox(
    bench: Bench, needs: dict[str, Any], host: str
):
    task = bench.task(needs=needs)
    assert placed(bench, task) == (REVIEW, host)
    why = place(bench.desk, task).why
    assert (why["host"], why["of"]) == (host, 2)
    chosen, other = why["candidates"]  # type: ignore[misc]  # a list, by what is told
    assert chosen["host"] == host
    assert 0 < chosen["score"] <= 1
    assert other["misfits"]


def test_what_no_host_fits_waits_and_every_host_says_why(bench: Bench):
    task = bench.task(needs={"labels": {"zone": "asia"}})
    assert blocked(bench, task) == ("fit/shared/review", "no live host fits")
    told = place(bench.desk, task).why["candidates"]
    assert told == [
        {"host": "g", "misfits": ["labels: zone is eu, must be asia"]},
        {"host": "h", "misfits": ["labels: zone is us, must be asia"]},
    ]


def test_however_many_hosts_and_labels_there_are_a_decision_stays_small():
    bench = Bench()
    labels = {f"{number:0128}": "x" * 128 for number in range(32)}
    for number in range(50):
        bench.beat(f"host-{number}", offer(labels=labels if number else {"zone": "eu"}))
    task = bench.task(needs={"labels": dict.fromkeys(labels, "y" * 128)})
    found = place(bench.desk, task)
    assert isinstance(found, Blocked)
    assert found.why["of"] == 50
    assert len(encode(found.why)) < 8000


def test_a_range_that_cannot_be_read_is_named_and_not_waited_for(bench: Bench):
    found = place(bench.desk, bench.task(needs={"version": ">=1..2"}))
    assert isinstance(found, Blocked)
    assert found.wrong is not None
    assert found.wrong[0] == "needs.version"


def test_a_mailbox_gets_no_more_than_its_host_has_slots_free(bench: Bench):
    for number in range(4):
        task = bench.task(needs={"specialization": ["sql"]})
        assert placed(bench, task) == (REVIEW, "g"), number
        if number % 2:
            bench.run(task, REVIEW, "g")
        else:
            bench.desk.proposals.boxes[("shared", "g")] += 1
    task = bench.task(needs={"specialization": ["sql"]})
    assert blocked(bench, task) == ("fit/shared/review", "every host that fits is full")
    told = place(bench.desk, task).why["candidates"]
    assert told[0] == {"host": "g", "short": "no slot of 4 is free"}  # type: ignore[index]


def test_a_host_that_always_finds_work_in_the_queue_still_gets_its_mail(bench: Bench):
    bench.beat("g", offer(free=0, specialization=["sql"]))
    task = bench.task(needs={"specialization": ["sql"]})
    assert blocked(bench, task)[1] == "every host that fits is full"
    bench.desk.performance.note("g", REVIEW, 5.0, True)
    assert placed(bench, task) == (REVIEW, "g")
    bench.run(task, REVIEW, "g")
    assert blocked(bench, bench.task(needs={"specialization": ["sql"]}))[0] == "fit/shared/review"


def test_mail_counts_among_what_the_queue_may_hold(bench: Bench):
    bench.desk.state.running[REVIEW] = 8
    task = bench.task(needs={"specialization": ["sql"]})
    assert blocked(bench, task)[0] == "slots/shared/review"


def test_cpu_and_memory_are_those_that_the_beats_measure(bench: Bench):
    bench.beat("g", offer(), cpus=4.0, cpu=3.9, free_mb=9000.0)
    bench.beat("h", offer(), cpus=4.0, cpu=0.5, free_mb=500.0)
    assert placed(bench, bench.task(needs={"cpu": 1})) == (REVIEW, "h")
    assert placed(bench, bench.task(needs={"memory_mb": 1000})) == (REVIEW, "g")
    assert blocked(bench, bench.task(needs={"cpu": 1, "memory_mb": 1000})) == (
        "fit/shared/review",
        "every host that fits is full",
    )
    assert blocked(bench, bench.task(needs={"cpu": 5}))[1] == "no live host fits"
    bench.beat("g", offer(), cpus=4.0, cpu=0.1, free_mb=9000.0)
    assert placed(bench, bench.task(needs={"cpu": 1})) == (REVIEW, None), "now it fits both"


def test_memory_is_not_given_twice_before_a_beat_shows_what_is_left(bench: Bench):
    bench.beat("g", offer(), cpus=4.0, free_mb=1500.0)
    bench.beat("h", offer(), cpus=4.0, free_mb=100.0)
    first, second = (bench.task(needs={"memory_mb": 1000}) for _ in range(2))
    assert placed(bench, first) == (REVIEW, "g")
    bench.run(first, REVIEW, "g")
    assert blocked(bench, second)[1] == "every host that fits is full"


def test_a_host_whose_name_is_a_number_has_no_mailbox(bench: Bench):
    bench.beat("007", offer(specialization=["lisp"]))
    task = bench.task(needs={"specialization": ["lisp"]})
    assert blocked(bench, task)[0] == "fit/shared/review"


# -- staying with a host, and avoiding one


def test_a_task_stays_with_a_host_until_that_is_gone(bench: Bench):
    task = bench.task(needs={"stay_with": "g"})
    bench.beat("g", offer(free=0))
    assert blocked(bench, task)[1] == "every host that fits is full", "rather than run elsewhere"
    bench.wait(2.0)
    bench.beat("h", offer())
    bench.wait(2.0)
    assert blocked(bench, task)[1] == "no live host fits", "it is silent, but may come back"
    bench.wait(17.0)
    bench.beat("h", offer())
    assert placed(bench, task) == (REVIEW, None)


def test_a_step_stays_with_the_host_of_an_earlier_one(bench: Bench):
    steps = [Step(id="build", capability="build"), Step(id="test", capability="review")]
    begin(bench.desk.state, "acme", 7, 0, FlowRun(name="w", steps=steps))
    done = {0: Result(seq=1, host="g"), 1: Result(seq=2, host="h")}
    bench.desk.state.flows["7"].steps["build"].results = done
    hosts = [
        placed(bench, bench.task(flow="7", step="test", index=index, needs={"stay_with": "build"}))
        for index in range(3)
    ]
    assert hosts == [(REVIEW, "g"), (REVIEW, "h"), (REVIEW, "g")]


def test_a_retry_elsewhere_goes_back_only_if_nobody_else_fits(bench: Bench):
    assert placed(bench, bench.task(avoid=["g"])) == (REVIEW, "h")
    assert placed(bench, bench.task(avoid=["h"])) == (REVIEW, "g")
    task = bench.task(avoid=["g"], needs={"specialization": ["sql"]})
    assert placed(bench, task) == (REVIEW, "g")
    why = place(bench.desk, task).why
    assert why["reason"] == "it failed before on every host that fits"


def test_a_retry_elsewhere_does_not_wait_for_a_host_that_never_has_the_memory(bench: Bench):
    bench.beat("g", offer(), cpus=4.0, free_mb=9000.0)
    bench.beat("h", offer(), cpus=4.0, free_mb=300.0, memory_mb=60.0)
    task = bench.task(needs={"memory_mb": 1000}, avoid=["g"])
    assert placed(bench, task) == (REVIEW, "g")
    bench.beat("h", offer(), cpus=4.0, free_mb=300.0, memory_mb=60.0, allocated_mb=2000.0)
    assert blocked(bench, task)[1] == "every host that fits is full", "it has it before long"


# -- rules


def test_a_rule_adds_requirements_that_the_task_does_not_make_itself():
    rules = (
        Rule(capability="review", needs=Needs(labels={"zone": "eu"}, version=">=2")),
        Rule(tenant="blue", needs=Needs(labels={"zone": "us"}, version="<2")),
    )
    bench = Bench(routing=Routing(rules=rules))
    bench.beat("g", offer(labels={"zone": "eu"}, version="2.0"))
    bench.beat("h", offer(labels={"zone": "us"}, version="1.0"))
    assert placed(bench, bench.task()) == (REVIEW, "g")
    assert placed(bench, bench.task(tenant="blue")) == (REVIEW, "h")
    assert blocked(bench, bench.task(needs={"version": "<2"}))[0] == "fit/shared/review"
    assert placed(bench, bench.task(needs={"avoid": ["x"]})) == (REVIEW, "g"), "the rest holds"
    assert blocked(bench, bench.task(needs={"labels": {"zone": "us"}}))[0] == "fit/shared/review"
    own = {"version": "<2", "labels": {"zone": "us"}}
    assert placed(bench, bench.task(needs=own)) == (REVIEW, "h")


def test_all_rules_that_match_apply_and_the_later_comes_before_the_earlier():
    routing = Routing(
        rules=(
            Rule(capability="*", prefer={"zone": "eu", "disk": "ssd"}, weights=Weights(load=1)),
            Rule(capability="review.*", prefer={"zone": "us"}),
            Rule(tenant="blue", weights=Weights(load=7)),
        )
    )
    found = routing.rule("blue", "review.python")
    assert found is not None
    assert found.prefer == {"zone": "us", "disk": "ssd"}
    assert found.weights == Weights(load=7)


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("review.*", ["review.python", "review.python.django"]),
        ("review", ["review"]),
        ("*", ["review", "review.python", "review.python.django", "reviewer"]),
    ],
)
def test_a_pattern_matches_what_is_below_it(pattern: str, matched: list[str]):
    names = ["review", "review.python", "review.python.django", "reviewer"]
    routing = Routing(rules=(Rule(capability=pattern, prefer={"a": "b"}),))
    assert [name for name in names if routing.rule("acme", name) is not None] == matched


def test_preferred_labels_come_first_while_one_of_them_has_room():
    bench = Bench(routing=Routing(rules=(Rule(capability="*", prefer={"zone": "eu"}),)))
    bench.beat("g", offer(slots=1, labels={"zone": "eu"}))
    bench.beat("h", offer(labels={"zone": "us"}))
    task = bench.task()
    assert placed(bench, task) == (REVIEW, "g")
    bench.run(task, REVIEW, "g")
    assert placed(bench, bench.task()) == (REVIEW, "h")
    bench.beat("h", offer(labels={"zone": "eu"}))
    assert placed(bench, bench.task()) == (REVIEW, None), "all are preferred alike"


def test_the_settings_become_rules_and_weights():
    settings_ = load_settings(
        overrides={
            "score.load": 5,
            "rules": [
                {
                    "capability": "review.*",
                    "tenant": "acme",
                    "needs": {"specialization": ["sql"], "cpu": 2, "labels": {"gpu": "a100"}},
                    "prefer": {"zone": "eu"},
                    "weights": {"latency": 9},
                }
            ],
        },
        environ={},
    )
    routing = routing_from(settings_)
    assert routing.weights == Weights(load=5)
    assert routing.rules == (
        Rule(
            capability="review.*",
            tenant="acme",
            needs=Needs(specialization=["sql"], cpu=2, labels={"gpu": "a100"}),
            prefer={"zone": "eu"},
            weights=Weights(load=5, latency=9),
        ),
    )
    assert routing_from(load_settings(environ={})) == Routing()


# -- the score


def among_equals(bench: Bench, **needs: Any) -> str | None:
    """Two hosts fit and a third does not, so the two are scored."""
    bench.beat("z", offer(labels={"odd": "yes"}))
    return placed(bench, bench.task(needs={"avoid": ["z"], **needs}))[1]


def test_among_equals_the_name_decides_and_not_who_came_first():
    for names in ("ghk", "khg"):
        bench = Bench()
        for name in names:
            bench.beat(name, offer())
        assert among_equals(bench) == "g"


def test_the_one_with_more_free_slots_is_chosen(bench: Bench):
    bench.beat("g", offer(free=1))
    bench.beat("h", offer(free=3))
    assert among_equals(bench) == "h"


def test_the_one_that_has_been_faster_is_chosen(bench: Bench):
    bench.beat("g", offer())
    bench.desk.performance.note("g", REVIEW, 900.0, True)
    bench.desk.performance.note("h", REVIEW, 100.0, True)
    assert among_equals(bench) == "h"


def test_the_one_that_fails_is_not_chosen_until_that_is_long_ago(bench: Bench):
    bench.beat("g", offer())
    bench.beat("h", offer())
    assert among_equals(bench) == "g", "by name, where all else is equal"
    for _ in range(5):
        bench.desk.performance.note("g", REVIEW, 0.0, False, at_ms=bench.at_ms)
    assert among_equals(bench) == "h"
    bench.desk.state.at_ms = bench.at_ms + 3 * 3600 * 1000
    assert among_equals(bench) == "g"


def test_specialists_are_left_to_those_who_need_them(bench: Bench):
    bench.beat("g", offer(specialization=["sql", "rust"]))
    bench.beat("h", offer(specialization=["sql"]))
    assert among_equals(bench, specialization=["sql"]) == "h"


def test_work_spreads_over_equal_hosts(bench: Bench):
    bench.beat("z", offer(labels={"odd": "yes"}))
    bench.beat("g", offer())
    bench.beat("h", offer())
    hosts = []
    for _ in range(8):
        task = bench.task(needs={"avoid": ["z"]})
        hosts.append(placed(bench, task)[1])
        bench.run(task, REVIEW, hosts[-1])
    assert sorted(hosts, key=str) == ["g"] * 4 + ["h"] * 4


def test_records_are_bounded_and_the_oldest_go_first():
    performance = Performance()
    for number in range(MOST_REMEMBERED + 5):
        performance.note(f"h{number}", REVIEW, 1.0, True)
        performance.note("h0", REVIEW, 1.0, True)
    assert len(performance.records) == MOST_REMEMBERED
    assert performance.known("h0", REVIEW) is not None
    assert performance.known("h1", REVIEW) is None
    assert performance.known("h0", ("coral", "review")) is None, "that is another pool's"


# -- whatever the hosts and requirements are


_words = st.lists(st.sampled_from(["sql", "rust"]), unique=True)
_labels = st.dictionaries(st.sampled_from(["zone", "gpu"]), st.sampled_from(["a", "b"]))
_offers = st.builds(
    Offer,
    st.just("review"),
    st.integers(0, 4),
    st.integers(0, 4),
    agent=st.sampled_from(["", "critic"]),
    version=st.sampled_from(["", "1.0", "2.1", "odd"]),
    specialization=_words,
    labels=_labels,
    memory_mb=st.sampled_from([None, 300.0]),
)
_hosts = st.lists(
    st.tuples(
        _offers,
        st.sampled_from([0.0, 2.0, 8.0]),
        st.sampled_from([0.0, 1.5, 2.5]),
        st.sampled_from([0.0, 200.0, 5000.0]),
    ),
    max_size=6,
)
_needs = st.builds(
    Needs,
    specialization=_words,
    version=st.sampled_from(["", ">=2", "<2"]),
    labels=_labels,
    cpu=st.sampled_from([None, 1.0, 4.0]),
    memory_mb=st.sampled_from([None, 100.0, 1000.0]),
    stay_with=st.sampled_from([None, "h0", "h1", "nobody"]),
    avoid=st.lists(st.sampled_from(["h0", "h2", "critic"]), max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(_hosts, _needs, _labels, st.lists(st.sampled_from(["h0", "h3"]), unique=True), st.randoms())
def test_whoever_is_chosen_fits_and_has_room_and_the_choice_is_always_the_same(
    hosts: list[tuple[Offer, float, float, float]],
    needs: Needs,
    prefer: dict[str, str],
    avoid: list[str],
    rng: random.Random,
):
    bench = Bench(routing=Routing(rules=(Rule(capability="review", prefer=prefer),)))
    beats = {
        f"h{number}": Beat(f"h{number}", "1", "shared", [one], cpus=cpus, cpu=cpu, free_mb=free_mb)
        for number, (one, cpus, cpu, free_mb) in enumerate(hosts)
    }
    for one in beats.values():
        bench.desk.liveness.heard(one, bench.now)
    bench.count()
    task = bench.task(needs={name: getattr(needs, name) for name in Needs.__struct_fields__})
    task.avoid = avoid
    found = place(bench.desk, task)
    again = Bench(routing=bench.desk.policy.routing)
    for name in rng.sample(sorted(beats), len(beats)):
        again.desk.liveness.heard(beats[name], again.now)
    again.count()
    other = place(again.desk, task)
    assert type(other) is type(found)
    if isinstance(found, Placement) and isinstance(other, Placement):
        assert (found.queue, found.host) == (other.queue, other.host), "whatever came first"
    if isinstance(found, Blocked):
        return
    assert len(encode(found.why)) < 4000
    asked = needs if needs.stay_with in beats else Needs(**{**_fields(needs), "stay_with": None})
    open_ = {name: one for name, one in beats.items() if one.offers[0].slots}
    fitting = [name for name, one in open_.items() if fits(asked, one, one.offers[0])]
    if found.host is None:
        assert sorted(open_) == sorted(fitting)
        assert not set(avoid) & set(fitting)
        return
    chosen = beats[found.host]
    assert found.host in fitting
    assert chosen.offers[0].free > 0
    assert shortage(asked, chosen, chosen.offers[0]) is None
    if found.host in avoid:
        assert set(fitting) <= set(avoid)
    assert len(found.why["candidates"]) <= MOST_TOLD  # type: ignore[arg-type]  # a list


def _fields(needs: Needs) -> dict[str, Any]:
    return {name: getattr(needs, name) for name in Needs.__struct_fields__}
