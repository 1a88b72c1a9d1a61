"""What people ask of tasks, workflows and schedules, and what the router makes of it."""

from __future__ import annotations

import pytest

from callboard_broker.rule import DEAD_WINDOW_MS
from callboard_broker.wire import (
    Answered,
    Dispatch,
    Event,
    Failure,
    Fired,
    Limit,
    Merged,
    Quota,
    Retrying,
    Settled,
)
from callboard_router.desk import Policy
from tests.simulation.leader import Leader

CANCELLED = Failure("Cancelled", "stopped", final=True)


@pytest.fixture
def led() -> Leader:
    limits = {"global": Limit(concurrency=10), "tenant": Limit(concurrency=10)}
    leader = Leader(Policy(limits=limits)).lead()
    leader.host("h", "plan", slots=10)
    leader.turn()
    return leader


def of_kind(events: list[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def refusal(events: list[Event]) -> str:
    (answer,) = of_kind(events, Answered)
    assert isinstance(answer, Answered)
    return "" if answer.error is None else answer.error.type


def ended(events: list[Event], task: str) -> tuple[str, str]:
    """(state, type of error) of the task's terminal event."""
    for event in events:
        if isinstance(event, Settled) and event.task == task:
            return event.state, "" if event.error is None else event.error.type
    return "", ""


def after(led: Leader, seconds: float) -> list[Event]:
    led.now += seconds
    running = [
        (name, task.life.attempt)
        for name, task in led.engine.state.tasks.items()
        if task.life.state == "running"
    ]
    led.beat(holds={"h": running})
    return led.turn()


# -- cancel


def test_a_waiting_task_is_cancelled_at_once(led: Leader):
    name = led.post(delay=100)
    led.turn()
    led.command("cancel", name, reason="not needed")
    events = led.turn()
    assert refusal(events) == ""
    assert ended(events, name) == ("cancelled", "Cancelled")


def test_a_running_task_is_asked_to_stop_until_its_outcome_comes(led: Leader):
    name = led.post()
    led.turn()
    led.command("cancel", name, reason="enough")
    assert not of_kind(led.turn(), Settled)
    assert led.engine.stops(led.now) == [("shared", [(name, 1)], "enough")]
    assert led.engine.stops(led.now) == [], "not at every turn"
    after(led, 1.5)
    assert led.engine.stops(led.now) == [("shared", [(name, 1)], "enough")]
    led.finish(name, error=CANCELLED)
    assert ended(led.turn(), name) == ("cancelled", "Cancelled")
    assert led.engine.stops(led.now + 9) == []


def test_a_task_that_succeeds_before_it_can_be_cancelled_has_succeeded(led: Leader):
    name = led.post()
    led.turn()
    led.command("cancel", name)
    led.finish(name, "done")
    led.turn()
    assert led.engine.state.finished == {"succeeded": 1}


def test_a_cancelled_task_is_not_retried(led: Leader):
    name = led.post(retry={"attempts": 5})
    led.turn()
    led.command("cancel", name)
    led.finish(name, error=Failure("Boom", "while it was stopped"))
    assert ended(led.turn(), name) == ("cancelled", "Cancelled")


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "signal", "approve", "redrive"])
def test_nobody_commands_what_is_anothers_or_never_was(led: Leader, verb: str):
    name = led.post(delay=50)
    for tenant, task in (("blue", name), ("acme", "999")):
        led.command(verb, task, tenant=tenant, name="go")
        assert refusal(led.turn()) == "UnknownTask"
    assert name in led.engine.state.tasks


def test_a_command_that_cannot_be_read_is_answered_with_its_field(led: Leader):
    led.store("cb.flow.acme.cancel", b'{"id": "*"}')
    led.store("cb.flow.acme.explode", b"{}")
    answers = of_kind(led.turn(), Answered)
    found = [a.error.field for a in answers if isinstance(a, Answered) and a.error is not None]
    assert found == ["id", "verb"]


def test_a_repeated_command_is_merged_into_the_first(led: Leader):
    name = led.post(delay=50)
    first = led.command("pause", name, nonce="n")
    again = led.command("pause", name, nonce="n")
    (merged,) = of_kind(led.turn(), Merged)
    assert isinstance(merged, Merged)
    assert (merged.task, merged.same_as) == (again, first)


# -- pause and resume


def test_a_paused_task_is_dispatched_only_after_it_was_resumed(led: Leader):
    name = led.post(delay=5)
    led.command("pause", name)
    led.turn()
    assert not of_kind(after(led, 6), Dispatch)
    led.command("resume", name)
    assert len(of_kind(led.turn(), Dispatch)) == 1


def test_what_is_queued_already_is_paused_too(led: Leader):
    names = [led.post() for _ in range(11)]
    led.turn()
    led.command("pause", names[10])
    led.finish(names[0])
    assert not of_kind(led.turn(), Dispatch)
    led.command("resume", names[10])
    assert len(of_kind(led.turn(), Dispatch)) == 1


def test_to_resume_what_is_not_paused_is_refused(led: Leader):
    led.command("resume", led.post())
    assert refusal(led.turn()) == "Conflict"


def test_a_paused_workflow_starts_nothing_new(led: Leader):
    flow = led.flow({"id": "a"}, {"id": "b", "after": ["a"]})
    led.turn()
    led.command("pause", flow)
    led.finish(f"{flow}.a.0")
    assert not of_kind(led.turn(), Dispatch)
    led.command("resume", flow)
    assert len(of_kind(led.turn(), Dispatch)) == 1


# -- retries


def test_an_error_is_followed_by_another_attempt_not_before_its_time(led: Leader):
    name = led.post(retry={"attempts": 2, "delay": 4})
    led.turn()
    led.finish(name, error=Failure("Boom", "once"))
    (retrying,) = of_kind(led.turn(), Retrying)
    assert isinstance(retrying, Retrying)
    assert led.at_ms <= retrying.at <= led.at_ms + 4000
    left = (retrying.at - led.at_ms) / 1000
    assert not of_kind(after(led, left - 0.01), Dispatch)
    assert len(of_kind(after(led, 0.02), Dispatch)) == 1
    led.finish(name, error=Failure("Boom", "twice"))
    assert ended(led.turn(), name) == ("failed", "Boom")


@pytest.mark.parametrize(
    "error",
    [
        Failure("BadInput", "no"),
        Failure("Boom", "no", final=True),
        Failure("Hopeless", "no"),
    ],
)
def test_what_no_retry_cures_is_not_retried(led: Leader, error: Failure):
    name = led.post(retry={"attempts": 9, "not_on": ["Hopeless"]})
    led.turn()
    led.finish(name, error=error)
    assert ended(led.turn(), name) == ("failed", error.type)


def test_lost_attempts_do_not_count_as_retries(led: Leader):
    name = led.post(retry={"attempts": 2, "delay": 0})
    led.turn()
    led.now += 30
    led.beat()
    led.turn()
    led.host("h2", "plan", slots=1)  # and its durable is looked after again
    led.turn()
    task = led.engine.state.tasks[name]
    assert (task.life.lost, task.life.unstarted, task.life.attempt) == (0, 1, 2)
    led.finish(name, error=Failure("Boom", "first error"))
    assert of_kind(led.turn(), Retrying)


def test_a_retry_elsewhere_names_the_host_that_failed(led: Leader):
    name = led.post(retry={"attempts": 3, "delay": 0, "elsewhere": True})
    led.turn()
    led.finish(name, error=Failure("Boom", "here"))
    (retrying,) = of_kind(led.turn(), Retrying)
    assert isinstance(retrying, Retrying)
    assert retrying.avoid == ["h"]


def test_a_retry_survives_the_router(led: Leader):
    name = led.post(retry={"attempts": 2, "delay": 60})
    led.turn()
    led.finish(name, error=Failure("Boom", "once"))
    (retrying,) = of_kind(led.turn(), Retrying)
    assert isinstance(retrying, Retrying)
    heir = Leader(led.engine.desk.policy, name="heir")
    heir.now = led.now
    for subject, data in led.journal:
        heir.store(subject, data)
    heir.now += 3
    heir.lead()
    heir.host("h", "plan", slots=1)
    early = of_kind(heir.turn(), Dispatch)
    assert bool(early) == (retrying.at <= heir.at_ms)
    heir.now = max(heir.now, retrying.at / 1000)
    heir.beat()
    heir.turn()
    assert name in heir.dispatched


# -- time


def test_a_task_nobody_can_serve_expires_by_its_queue_timeout_and_says_so(led: Leader):
    name = led.post(capability="nobody", timeouts={"queue": 5})
    assert not led.turn()
    events = after(led, 5)
    assert ended(events, name) == ("expired", "Expired")
    (settled,) = of_kind(events, Settled)
    assert isinstance(settled, Settled)
    assert settled.error is not None
    assert "no agent serves nobody" in settled.error.message


def test_the_queue_timeout_is_over_once_the_task_has_run(led: Leader):
    name = led.post(timeouts={"queue": 5}, retry={"attempts": 2, "delay": 20, "factor": 1})
    led.turn()
    led.finish(name, error=Failure("Boom", "once"))
    led.turn()
    assert not of_kind(after(led, 6), Settled)


def test_a_total_timeout_stops_what_runs_and_then_expires_it(led: Leader):
    name = led.post(timeouts={"total": 5}, retry={"attempts": 9})
    (dispatch,) = of_kind(led.turn(), Dispatch)
    assert isinstance(dispatch, Dispatch)
    assert dispatch.timeout == 5, "no attempt may run beyond it"
    after(led, 5)
    assert led.engine.stops(led.now)[0][1] == [(name, 1)]
    led.finish(name, error=CANCELLED)
    assert ended(led.turn(), name) == ("expired", "Expired")


def test_a_delayed_task_waits_for_its_time(led: Leader):
    led.post(delay=5)
    assert not of_kind(led.turn(), Dispatch)
    assert not of_kind(after(led, 4.9), Dispatch)
    assert len(of_kind(after(led, 0.2), Dispatch)) == 1


def test_a_workflow_expires_as_a_whole(led: Leader):
    flow = led.flow({"id": "a"}, {"id": "b", "after": ["a"]}, timeout=5)
    led.turn()
    after(led, 5)
    assert led.engine.stops(led.now)[0][1] == [(f"{flow}.a.0", 1)]
    led.finish(f"{flow}.a.0", error=CANCELLED)
    assert ended(led.turn(), flow)[0] == "expired"


# -- schedules


def test_a_schedule_makes_a_task_at_each_of_its_times(led: Leader):
    led.now = 120.0
    led.beat()
    name = led.post(cron={"expression": "* * * * *"})
    assert [e.next_at for e in led.turn() if isinstance(e, Fired)] == [180_000]
    assert len(of_kind(after(led, 60), Dispatch)) == 1
    led.finish(f"{name}.cron.1")
    assert len(of_kind(after(led, 60), Dispatch)) == 1


def test_a_schedule_passes_a_time_over_while_the_task_before_runs(led: Leader):
    led.now = 120.0
    led.beat()
    name = led.post(cron={"expression": "* * * * *"})
    led.turn()
    after(led, 60)
    assert not of_kind(after(led, 60), Dispatch)
    led.finish(f"{name}.cron.1")
    assert len(of_kind(after(led, 60), Dispatch)) == 1
    assert led.engine.state.schedules[name].number == 2


def test_times_that_were_missed_are_not_made_up_for(led: Leader):
    led.now = 120.0
    led.beat()
    led.post(cron={"expression": "* * * * *", "overlap": True})
    led.turn()
    assert len(of_kind(after(led, 600), Dispatch)) == 1


@pytest.mark.parametrize(
    "cron",
    [
        {"expression": "never"},
        {"expression": "0 0 30 2 *"},
        {"expression": "0 0 * 8 1#6"},
        {"expression": "* * * * *", "zone": "Moon/Base"},
        {"expression": "* * * * *", "zone": "Europe"},
        {"expression": "* * * * *", "zone": "../../etc/passwd"},
        {"expression": "* * * * *", "zone": "zone.tab"},
        {"expression": "* * * * *", "zone": "\x00"},
    ],
    ids=str,
)
def test_a_schedule_that_cannot_be_fails_with_its_reason(led: Leader, cron: dict[str, str]):
    name = led.post(cron=cron)
    assert ended(led.turn(), name) == ("failed", "BadInput")


def test_a_cancelled_schedule_makes_no_more_tasks(led: Leader):
    name = led.post(cron={"expression": "* * * * *"})
    led.turn()
    led.command("cancel", name)
    assert ended(led.turn(), name)[0] == "cancelled"
    assert not of_kind(after(led, 120), Dispatch)


# -- dead letters


def test_a_dead_letter_is_run_again_as_a_new_generation(led: Leader):
    name = led.post(payload={"n": 1})
    led.turn()
    led.finish(name, error=Failure("Boom", "no"))
    led.turn()
    led.command("redrive", name)
    (dispatch,) = of_kind(led.turn(), Dispatch)
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.task, dispatch.attempt, dispatch.post) == (name, 2, int(name))
    led.finish(name, "better")
    led.turn()
    assert led.engine.state.finished == {"failed": 1, "succeeded": 1}


def test_a_dead_letter_can_be_edited(led: Leader):
    name = led.post(payload={"n": "one"})
    led.turn()
    led.finish(name, error=Failure("BadInput", "not a number"))
    led.turn()
    led.command("redrive", name, payload={"n": 1})
    led.turn()
    assert led.payload(name) == {"n": 1}


def test_a_post_that_cannot_be_read_is_run_again_only_with_another_payload(led: Leader):
    name = led.post(priority=77)
    led.turn()
    led.command("redrive", name)
    assert refusal(led.turn()) == "Conflict"
    led.command("redrive", name, payload={"n": 1})
    led.turn()
    assert led.payload(name) == {"n": 1}


def test_dead_letters_are_forgotten_after_a_week(led: Leader):
    name = led.post(priority=77)
    led.turn()
    after(led, DEAD_WINDOW_MS / 1000)
    led.post(priority=77)
    led.turn()
    led.command("redrive", name)
    assert refusal(led.turn()) == "UnknownTask"


# -- the door


def test_more_may_not_wait_than_the_limit_says_and_the_refusal_tells_when_to_come_back():
    limits = {"global": Limit(concurrency=1), "tenant": Limit(concurrency=1, waiting=3)}
    led = Leader(Policy(limits=limits)).lead()
    for _ in range(3):
        led.post()
    refused = led.post(key="k")
    (settled,) = of_kind(led.turn(), Settled)
    assert isinstance(settled, Settled)
    assert settled.error is not None
    assert (settled.task, settled.error.type) == (refused, "Overloaded")
    assert settled.error.retry_after
    assert led.post(tenant="blue") in led.engine.state.tasks, "another tenant has its own limit"
    led.host("h", "plan", slots=1)
    led.turn()
    led.post(key="k")
    assert not led.engine.state.merges, "what was refused is not remembered by its key"


def test_a_schedule_that_was_refused_is_no_task_whatever_payload_it_is_given():
    limits = {"global": Limit(concurrency=1), "tenant": Limit(concurrency=1, waiting=1)}
    led = Leader(Policy(limits=limits)).lead()
    led.post()
    refused = led.post(cron={"expression": "* * * * *"})
    assert ended(led.turn(), refused) == ("failed", "Overloaded")
    led.command("redrive", refused, payload={"n": 1})
    assert refusal(led.turn()) == "Conflict"


# -- spawned tasks


def test_only_the_current_attempt_spawns(led: Leader):
    name = led.post()
    led.turn()
    secret = led.dispatched[name].secret
    child = led.post(parent={"task": name, "attempt": 1, "secret": secret})
    assert led.engine.state.tasks[child].parent == name
    for wrong in ({"secret": "guess"}, {"attempt": 2}):
        stray = led.post(parent={"task": name, "attempt": 1, "secret": secret} | wrong)
        assert ended(led.turn(), stray) == ("failed", "Fenced")


def test_a_child_is_cancelled_with_its_parent(led: Leader):
    name = led.post()
    led.turn()
    secret = led.dispatched[name].secret
    child = led.post(delay=60, parent={"task": name, "attempt": 1, "secret": secret})
    led.command("cancel", name)
    assert ended(led.turn(), child)[0] == "cancelled"


def test_a_workflow_ends_after_what_its_tasks_have_spawned(led: Leader):
    flow = led.flow({"id": "a"})
    led.turn()
    name = f"{flow}.a.0"
    parent = {"task": name, "attempt": 1, "secret": led.dispatched[name].secret}
    child = led.post(parent=parent)
    led.turn()
    led.finish(name)
    assert not of_kind(led.turn(), Settled)
    led.finish(child, error=Failure("Boom", "the child's own"))
    assert ended(led.turn(), flow)[0] == "succeeded", "a child's failure is its parent's matter"


# -- what an attempt uses


def test_units_are_reserved_before_and_settled_after(led: Leader):
    led.engine.set_budgets(
        {"key/llm": Limit(units={"tokens": Quota(100)})}, "test", lambda _in_force: None
    )
    led.turn()
    first = led.post(budgets=["llm"], units={"tokens": 80})
    second = led.post(budgets=["llm"], units={"tokens": 80})
    assert [e.task for e in led.turn() if isinstance(e, Dispatch)] == [first]
    led.finish(first, used={"tokens": 10})
    assert [e.task for e in led.turn() if isinstance(e, Dispatch)] == [second]
