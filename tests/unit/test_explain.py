"""What a person is told of a task: where it went and why, or what exactly it waits for."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from callboard_broker.wire import (
    Cron,
    Expanded,
    Failure,
    FlowRun,
    Gate,
    Limit,
    Quota,
    Ref,
    Step,
    SubFlow,
    Terms,
    Timeouts,
)
from callboard_router.explain import explain
from callboard_router.filling import Missing, Source
from callboard_router.flow import Result
from callboard_router.state import Schedule
from callboard_router.workflow import begin, expand, finish_step
from tests.desks import Bench, offer

REVIEW = ("shared", "review")


@pytest.fixture
def bench() -> Bench:
    """One host reviews, with two slots."""
    found = Bench()
    found.beat("h", offer(slots=2))
    return found


def told(bench: Bench, name: str, tenant: str = "acme") -> dict[str, Any]:
    found = explain(bench.desk, tenant, name, bench.at_ms)
    assert found is not None
    json.dumps(found)
    return found


def reasons(bench: Bench, name: str) -> list[str]:
    found = told(bench, name)
    assert found["state"] == "waiting"
    assert found["message"]
    assert all(wait["message"] for wait in found["waits_for"])
    return [wait["for"] for wait in found["waits_for"]]


def flow(bench: Bench, *steps: Step, **fields: Any) -> None:
    """The workflow 7 begins."""
    begin(bench.desk.state, "acme", 7, 0, FlowRun(name="w", steps=list(steps), **fields))


def done(bench: Bench, name: str, value: bytes = b"1") -> None:
    """A step's task has succeeded, as the fold has it."""
    from_ = bench.desk.state
    task = from_.tasks[name]
    from_.remove(task)
    task.life.state = "succeeded"
    finish_step(from_, from_.flows["7"], task, Result(seq=9, value=value, host="h"))


# -- what waits


def test_a_task_that_could_go_waits_for_its_turn(bench: Bench):
    task = bench.task()
    assert reasons(bench, task.id) == ["turn"]
    bench.desk.proposals.open_dispatch(task.id, task.need, REVIEW, None)
    assert reasons(bench, task.id) == ["decision"]


def test_a_task_that_nobody_serves_names_the_capability(bench: Bench):
    task = bench.task("plan")
    bench.wait(2.0)
    bench.beat("h", offer(slots=2))
    found = told(bench, task.id)["waits_for"]
    assert [wait["for"] for wait in found] == ["agents"]
    assert (found[0]["pool"], found[0]["capability"]) == ("shared", "plan")
    assert "nobody serves plan in pool shared" in found[0]["message"]


def test_every_budget_without_room_is_named_with_its_use_and_limit(bench: Bench):
    bench.limit(
        **{"global": Limit(concurrency=5)},
        tenant__acme=Limit(concurrency=1),
        capability__review=Limit(rate=0.5),
    )
    first, second = bench.task(), bench.task()
    bench.run(first, REVIEW)
    found = told(bench, second.id)["waits_for"]
    assert [(wait["for"], wait["name"]) for wait in found] == [
        ("budget", "tenant/acme"),
        ("budget", "rate of capability/review"),
    ]
    assert (found[0]["in_use"], found[0]["limit"]) == (1, 1)
    assert found[1]["at"] == bench.at_ms + 2000
    bench.end(first)
    bench.wait(2.0)
    bench.beat("h", offer(slots=2))
    assert reasons(bench, second.id) == ["turn"]


def test_units_that_can_never_suffice_are_said_to_be_so(bench: Bench):
    bench.limit(key__openai=Limit(units={"tokens": Quota(1000, 60)}))
    terms = Terms(budgets=["openai"], units={"tokens": 5000})
    task = bench.task(terms=terms)
    (wait,) = told(bench, task.id)["waits_for"]
    assert wait["name"] == "units tokens of key/openai"
    assert "never more than 1000" in wait["message"]
    assert wait["at"] is None


def test_hosts_that_do_not_fit_say_why_and_full_ones_too(bench: Bench):
    task = bench.task(needs={"labels": {"gpu": "a100"}})
    (wait,) = told(bench, task.id)["waits_for"]
    assert (wait["for"], wait["of"]) == ("fit", 1)
    misfits = ["labels: gpu is not set, must be a100"]
    assert wait["candidates"] == [{"host": "h", "misfits": misfits}]
    bench.desk.state.running[REVIEW] = 2
    (wait,) = told(bench, bench.task().id)["waits_for"]
    assert wait["for"] == "slots"
    assert (wait["slots"], wait["running"], wait["hosts"]) == (2, 2, 1)


def test_a_pause_a_delay_and_a_budget_are_told_together(bench: Bench):
    bench.limit(**{"global": Limit(concurrency=0)})
    task = bench.task(paused=True, not_before=bench.at_ms + 1500)
    assert reasons(bench, task.id) == ["pause", "time", "budget"]
    assert told(bench, task.id)["waits_for"][1]["at"] == bench.at_ms + 1500


def test_a_retry_says_when_and_how_often_it_failed(bench: Bench):
    task = bench.task(not_before=bench.at_ms + 1500)
    task.life.attempt = task.life.errors = 2
    found = told(bench, task.id)
    assert found["waits_for"][0]["retry"] is True
    assert "attempt 2 failed; it is tried again in 1.5 s" in found["message"]
    assert found["history"]["errors"] == 2


def test_a_task_that_will_expire_says_when(bench: Bench):
    task = bench.task("plan", terms=Terms(timeouts=Timeouts(queue=60)))
    assert told(bench, task.id)["waits_for"][-1]["expires_at"] == bench.at_ms + 60_000


def test_what_the_router_is_about_to_decide_hides_everything_else(bench: Bench):
    bench.limit(**{"global": Limit(concurrency=0)})
    cancelled = bench.task(cancel="no longer wanted")
    assert reasons(bench, cancelled.id) == ["cancellation"]
    failed = bench.task()
    failed.life.failure = Failure("ValueError", "no")
    assert reasons(bench, failed.id) == ["decision"]
    unfillable = bench.task()
    bench.desk.agenda.give_up(unfillable.id, Failure("BadInput", "no such path", field="x"))
    assert reasons(bench, unfillable.id) == ["decision"]


# -- what runs


def test_a_running_task_says_where_it_went_and_why_and_who_has_it(bench: Bench):
    task = bench.task()
    why = {"reason": "best score of those that fit", "candidates": [{"host": "h", "score": 0.9}]}
    bench.run(task, REVIEW, "h", why=why)
    found = told(bench, task.id)
    assert (found["state"], found["waits_for"]) == ("running", [])
    assert found["dispatch"]["mailbox"] == "h"
    assert found["dispatch"]["held_by"] is None
    assert found["dispatch"]["why"] == why
    bench.beat("h", offer(slots=2), holds=[(task.id, 1)])
    assert told(bench, task.id)["dispatch"]["held_by"] == "h"
    assert "in the mailbox of h (best score" in told(bench, task.id)["message"]
    task.cancel = "enough"
    assert told(bench, task.id)["message"].endswith("its host is asked to stop it")


def test_a_task_in_the_queue_of_an_ancestor_says_so(bench: Bench):
    task = bench.task("review.python")
    bench.run(task, REVIEW)
    assert "shared queue review of pool shared" in told(bench, task.id)["message"]


# -- workflows


def test_a_step_waits_for_the_steps_before_it(bench: Bench):
    flow(
        bench,
        Step(id="plan", capability="review"),
        Step(id="build", capability="review", after=["plan"]),
    )
    assert reasons(bench, "7.plan.0") == ["turn"]
    for name in ("7.build", "7.build.0"):
        (wait,) = told(bench, name)["waits_for"]
        assert (wait["for"], wait["name"]) == ("step", "plan")
        assert told(bench, name)["kind"] == "step"
    done(bench, "7.plan.0")
    assert reasons(bench, "7.build.0") == ["turn"]
    assert told(bench, "7.plan")["state"] == "succeeded"
    assert told(bench, "7.plan.0")["state"] == "succeeded"


def test_a_gate_asks_its_question(bench: Bench):
    flow(
        bench,
        Step(id="ok", gate=Gate(prompt="Deploy to production?")),
        Step(id="go", gate=Gate(kind="signal", signal="ready")),
    )
    (wait,) = told(bench, "7.ok.0")["waits_for"]
    assert (wait["for"], wait["prompt"]) == ("approval", "Deploy to production?")
    assert "callboard approve 7.ok.0" in wait["message"]
    (wait,) = told(bench, "7.go.0")["waits_for"]
    assert (wait["for"], wait["signal"]) == ("signal", "ready")
    assert told(bench, "7.ok.0")["kind"] == "gate"


def test_a_workflow_tells_of_each_step_that_is_not_over(bench: Bench):
    flow(
        bench,
        Step(id="plan", capability="review"),
        Step(id="list", capability="review", each=Ref("plan")),
        Step(id="ok", gate=Gate()),
        Step(id="sub", flow=SubFlow(steps=[Step(id="inner", capability="review")])),
        Step(id="end", capability="plan", after=["list", "ok"]),
    )
    found = told(bench, "7")
    assert (found["kind"], found["state"]) == ("workflow", "waiting")
    waiting = {name: [w["for"] for w in step["waits_for"]] for name, step in found["steps"].items()}
    assert waiting == {
        "plan": ["turn"],
        "list": ["step"],
        "ok": ["approval"],
        "sub": ["workflow"],
        "end": ["step", "step"],
    }
    assert {wait["step"] for wait in found["waits_for"]} == set(waiting)
    bench.run(bench.desk.state.tasks["7.plan.0"], REVIEW)
    found = told(bench, "7")
    assert (found["state"], found["steps"]["plan"]["running"]) == ("running", 1)
    assert found["message"] == "0 of 5 steps are done, 1 task runs"


def test_a_large_fan_out_is_told_of_in_a_few_words(bench: Bench):
    flow(
        bench,
        Step(id="list", capability="review", each=Ref("inputs", "items")),
        inputs=msgspec.Raw(msgspec.json.encode({"items": list(range(5000))})),
    )
    assert reasons(bench, "7.list") == ["inputs"]
    expand(bench.desk.state, bench.desk.state.flows["7"], Expanded("7", "list", 0, 5000))
    found = told(bench, "7")
    assert found["steps"]["list"]["total"] == 5000
    assert len(found["waits_for"]) < 10
    assert explain(bench.desk, "acme", "7.list.5000", bench.at_ms) is None


def test_a_workflow_whose_steps_are_done_waits_for_what_they_spawned(bench: Bench):
    flow(bench, Step(id="plan", capability="review"))
    bench.desk.state.flows["7"].open += 1
    child = bench.task(flow="7", parent="7.plan.0")
    done(bench, "7.plan.0")
    (wait,) = told(bench, "7")["waits_for"]
    assert (wait["for"], wait["tasks"]) == ("spawned", [child.id])


def test_a_paused_workflow_holds_up_its_steps(bench: Bench):
    flow(bench, Step(id="plan", capability="review"))
    bench.desk.state.flows["7"].paused = True
    (wait, *_) = told(bench, "7.plan.0")["waits_for"]
    assert (wait["for"], wait["id"]) == ("pause", "7")


def test_a_step_whose_payload_is_being_fetched_says_so(bench: Bench):
    flow(bench, Step(id="plan", capability="review"))
    bench.desk.agenda.park("7.plan.0", "7", Missing({Source(seq=3)}))
    assert reasons(bench, "7.plan.0") == ["inputs"]


# -- the rest


def test_what_failed_is_known_for_as_long_as_it_can_be_run_again(bench: Bench):
    task = bench.task()
    bench.desk.state.remove(task)
    task.life.state, task.life.failure = "failed", Failure("ValueError", "no")
    bench.desk.state.dead[task.id] = (bench.at_ms, task)
    found = told(bench, task.id)
    assert (found["state"], found["message"]) == ("failed", "ValueError: no")
    assert found["hint"] == f"callboard dead redrive {task.id}"
    flow(bench, Step(id="plan", capability="review"))
    gone = bench.desk.state.flows.pop("7")
    gone.failure = Failure("StepFailed", "plan failed")
    bench.desk.state.dead_flows["7"] = (bench.at_ms, gone)
    assert told(bench, "7")["hint"] == "callboard resume 7"


def test_a_schedule_says_when_its_next_time_is(bench: Bench):
    schedule = Schedule(
        id="9",
        tenant="acme",
        capability="review",
        shard=0,
        seq=9,
        since=bench.at_ms,
        cron=Cron("0 6 * * *"),
        template=bench.task(),
        next_at=bench.at_ms + 60_000,
    )
    bench.desk.state.schedules["9"] = schedule
    assert told(bench, "9")["message"] == "its next time is in 60 s"
    schedule.paused = True
    assert told(bench, "9")["waits_for"][0]["for"] == "pause"


def test_nobody_is_told_of_another_tenants_work(bench: Bench):
    task = bench.task()
    flow(bench, Step(id="plan", capability="review", after=[]))
    for name in (task.id, "7", "7.plan.0", "7.plan"):
        assert explain(bench.desk, "blue", name, bench.at_ms) is None
        assert told(bench, name, "all")["tenant"] == "acme"


@pytest.mark.parametrize("name", ["", "8", "7.", "7.nope", "7.plan.x", "7.plan.9", ".", "a.b.c.d"])
def test_a_name_that_means_nothing_is_not_explained(bench: Bench, name: str):
    flow(bench, Step(id="plan", capability="review"))
    assert explain(bench.desk, "acme", name, bench.at_ms) is None


def test_to_explain_changes_nothing(bench: Bench):
    bench.limit(**{"global": Limit(concurrency=5)})
    bench.task("plan")
    task = bench.task(needs={"labels": {"gpu": "a100"}})
    before = msgspec.msgpack.encode(list(bench.desk.state.tasks.values()))
    for name in list(bench.desk.state.tasks):
        told(bench, name)
    assert msgspec.msgpack.encode(list(bench.desk.state.tasks.values())) == before
    assert task.id not in bench.desk.proposals
    assert not bench.desk.agenda.wanted
