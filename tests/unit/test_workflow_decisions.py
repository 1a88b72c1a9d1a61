"""What the router writes down about workflows, and the payloads that it hands out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from callboard_broker.wire import (
    BlobRef,
    Dispatch,
    Entered,
    Event,
    Expanded,
    Failure,
    Limit,
    Settled,
    Skipped,
)
from callboard_router.desk import Policy
from callboard_router.filling import Source, Values
from callboard_router.flow import INLINE, Result
from tests.simulation.leader import Leader


@pytest.fixture
def leader() -> Leader:
    led = Leader(Policy(limits={"global": Limit(concurrency=100)})).lead()
    led.host("h", "plan", slots=100)
    return led


def do(leader: Leader, task: str, result: Any = None, **outcome: Any) -> list[Event]:
    """Something runs, and what follows is decided."""
    leader.turn()
    leader.finish(task, result, **outcome)
    return leader.turn()


def ending(events: list[Event]) -> Settled:
    (found,) = [event for event in events if isinstance(event, Settled)]
    return found


def result(settled: Settled) -> Any:
    return msgspec.json.decode(settled.result) if isinstance(settled.result, msgspec.Raw) else None


# -- values


def test_what_a_tolerated_failure_would_have_given_is_null(leader: Leader):
    flow = leader.flow(
        {"id": "a"},
        {"id": "b"},
        {
            "id": "c",
            "join": "best_effort",
            "payload": {"a": {"from": "a", "path": "x.y"}, "b": {"from": "b", "path": "x"}},
        },
    )
    do(leader, f"{flow}.a.0", error=Failure("Boom", "no", final=True))
    do(leader, f"{flow}.b.0", {"x": 1})
    assert leader.payload(f"{flow}.c.0") == {"a": None, "b": 1}


def test_absent_elements_of_a_fan_out_are_null_in_its_list(leader: Leader):
    flow = leader.flow(
        {"id": "a", "each": {"from": "inputs", "path": "list"}, "payload": {"from": "item"}},
        {
            "id": "b",
            "join": "best_effort",
            "payload": {"all": {"from": "a"}, "one": {"from": "a", "path": "1.x"}},
        },
        inputs={"list": [7, 8]},
    )
    leader.turn()
    assert leader.payload(f"{flow}.a.1") == 8
    do(leader, f"{flow}.a.0", {"x": 7})
    do(leader, f"{flow}.a.1", error=Failure("Boom", "no", final=True))
    assert leader.payload(f"{flow}.b.0") == {"all": [{"x": 7}, None], "one": None}


def test_a_join_that_has_chosen_sees_nothing_that_comes_later(leader: Leader):
    flow = leader.flow(
        {"id": "a"},
        {"id": "b"},
        {
            "id": "c",
            "each": {"from": "inputs", "path": "list"},
            "payload": [{"from": "a"}, {"from": "b"}],
            "join": "any",
            "at_once": 1,
        },
        inputs={"list": [1, 2]},
    )
    do(leader, f"{flow}.a.0", "first")
    assert leader.payload(f"{flow}.c.0") == ["first", None]
    leader.finish(f"{flow}.b.0", "too late")
    do(leader, f"{flow}.c.0")
    assert leader.payload(f"{flow}.c.1") == ["first", None]


def test_a_result_that_comes_after_the_choice_and_before_the_dispatch_is_not_seen(leader: Leader):
    flow = leader.flow(
        {"id": "a"}, {"id": "b"}, {"id": "c", "payload": [{"from": "a"}, {"from": "b"}], "join": 1}
    )
    leader.turn()
    leader.finish(f"{flow}.a.0", "first")
    leader.finish(f"{flow}.b.0", "too late")
    leader.turn()
    assert leader.payload(f"{flow}.c.0") == ["first", None]


def test_values_of_an_older_generation_are_forgotten(leader: Leader):
    flow = leader.flow({"id": "a"}, inputs={"x": 1})
    found, values = leader.engine.state.flows[flow], Values()
    assert values.inputs(found) == {"x": 1}
    found.inputs = [*found.inputs, Result(9, b'{"x": 2}')]
    found.generation += 1
    assert values.inputs(found) == {"x": 2}


def test_a_long_signal_or_result_is_fetched_from_where_it_stands(leader: Leader):
    flow = leader.flow({"id": "a"}, {"id": "b", "payload": {"from": "a"}})
    do(leader, f"{flow}.a.0", "x" * INLINE)
    seq = len(leader.journal)
    assert leader.engine.wanted() == [Source(seq)]
    leader.engine.fetched(Source(seq), "long")
    leader.turn()
    assert leader.payload(f"{flow}.b.0") == "long"


def test_all_long_values_that_a_payload_needs_are_fetched_at_the_same_time(leader: Leader):
    flow = leader.flow(
        {"id": "a"}, {"id": "b"}, {"id": "c", "payload": [{"from": "a"}, {"from": "b"}]}
    )
    do(leader, f"{flow}.a.0", "x" * INLINE)
    first = len(leader.journal)
    do(leader, f"{flow}.b.0", "y" * INLINE)
    assert set(leader.engine.wanted()) == {Source(first), Source(len(leader.journal))}


def test_edited_inputs_are_merged_over_the_old_ones(leader: Leader):
    flow = leader.flow({"id": "a", "payload": {"from": "inputs"}}, inputs={"x": 1, "y": 1})
    do(leader, f"{flow}.a.0", error=Failure("Boom", "no", final=True))
    assert leader.payload(f"{flow}.a.0") == {"x": 1, "y": 1}
    leader.command("resume", flow, payload={"y": 2})
    leader.turn()
    assert leader.payload(f"{flow}.a.0") == {"x": 1, "y": 2}
    assert leader.dispatched[f"{flow}.a.0"].attempt == 2


# -- conditions


def test_a_step_whose_condition_does_not_hold_is_skipped_with_what_needs_it(leader: Leader):
    flow = leader.flow(
        {"id": "a"},
        {"id": "b", "when": {"value": {"from": "a", "path": "n"}, "above": 3}},
        {"id": "c", "after": ["b"]},
    )
    events = do(leader, f"{flow}.a.0", {"n": 3})
    assert [event.task for event in events if isinstance(event, Skipped)] == [f"{flow}.b.0"]
    assert ending(events).state == "succeeded"
    assert result(ending(events)) == {"c": None}


def test_each_element_may_have_its_own_answer(leader: Leader):
    flow = leader.flow(
        {
            "id": "a",
            "each": {"from": "inputs", "path": "list"},
            "when": {"value": {"from": "item"}, "above": 1},
        },
        inputs={"list": [1, 2, 3]},
    )
    events = leader.turn()
    assert [event.task for event in events if isinstance(event, Skipped)] == [f"{flow}.a.0"]
    assert sorted(leader.dispatched) == [f"{flow}.a.1", f"{flow}.a.2"]


def test_a_fan_out_is_skipped_as_a_whole_before_its_list_is_looked_at(leader: Leader):
    flow = leader.flow(
        {"id": "a"},
        {
            "id": "b",
            "each": {"from": "a", "path": "list"},
            "when": {"from": "a", "path": "go"},
        },
    )
    events = do(leader, f"{flow}.a.0", {"go": False})
    (expanded,) = [event for event in events if isinstance(event, Expanded)]
    assert (expanded.skipped, expanded.error) == ("its condition does not hold", None)
    assert ending(events).state == "succeeded"


def test_a_fan_out_that_never_runs_gives_null_and_not_an_empty_list(leader: Leader):
    leader.flow(
        {
            "id": "a",
            "each": {"from": "inputs", "path": "list"},
            "when": {"from": "inputs", "path": "go"},
        },
        {
            "id": "b",
            "payload": [{"from": "a"}, {"from": "a", "path": "0.x"}],
            "join": "best_effort",
        },
        inputs={"list": [1], "go": False},
    )
    leader.turn()
    assert [leader.payload(task) for task in leader.dispatched] == [[None, None]]


def test_a_condition_that_cannot_be_answered_fails_its_step(leader: Leader):
    flow = leader.flow({"id": "a"}, {"id": "b", "when": {"from": "a", "path": "ok"}})
    events = do(leader, f"{flow}.a.0", {"ok": "yes"})
    failures = {event.task: event.error for event in events if isinstance(event, Settled)}
    error = failures[f"{flow}.b.0"]
    assert error is not None
    assert (error.type, error.message) == ("BadInput", "a.ok is a str; it must be true or false")
    assert flow in failures


def test_the_condition_of_a_gate_is_asked_before_anybody_is(leader: Leader):
    flow = leader.flow(
        {
            "id": "ask",
            "capability": "",
            "gate": {},
            "when": {"value": {"from": "inputs", "path": "sum"}, "above": 100},
        },
        {"id": "b", "after": ["ask"], "join": "best_effort"},
        inputs={"sum": 5},
    )
    leader.turn()
    assert f"{flow}.b.0" in leader.dispatched


# -- inner workflows


def test_an_inner_workflow_is_entered_with_its_payload_and_gives_its_output(leader: Leader):
    inner = {
        "steps": [{"id": "x", "capability": "plan", "payload": {"from": "inputs", "path": "n"}}],
        "output": {"got": {"from": "x"}},
    }
    flow = leader.flow(
        {
            "id": "a",
            "capability": "",
            "flow": inner,
            "each": {"from": "inputs", "path": "list"},
            "payload": {"n": {"from": "item"}},
        },
        inputs={"list": [5, 6]},
    )
    events = leader.turn()
    assert [event.task for event in events if isinstance(event, Entered)] == [
        f"{flow}.a.0",
        f"{flow}.a.1",
    ]
    assert leader.payload(f"{flow}.a.1.x.0") == 6
    do(leader, f"{flow}.a.0.x.0", "five")
    events = do(leader, f"{flow}.a.1.x.0", "six")
    settled = [event for event in events if isinstance(event, Settled)]
    assert [event.task for event in settled] == [f"{flow}.a.1", flow]
    assert result(settled[1]) == {"a": [{"got": "five"}, {"got": "six"}]}


def test_an_inner_workflow_without_a_payload_has_no_inputs_but_an_object(leader: Leader):
    flow = leader.flow(
        {
            "id": "a",
            "capability": "",
            "flow": {"steps": [{"id": "x", "capability": "plan", "payload": {"from": "inputs"}}]},
        }
    )
    leader.turn()
    assert leader.payload(f"{flow}.a.0.x.0") == {}


def test_an_inner_workflow_may_fan_out_and_be_nested_again(leader: Leader):
    deepest = {
        "steps": [
            {
                "id": "x",
                "capability": "plan",
                "each": {"from": "inputs", "path": "list"},
                "payload": {"from": "item"},
            }
        ]
    }
    middle = {"steps": [{"id": "m", "flow": deepest, "payload": {"from": "inputs"}}]}
    flow = leader.flow({"id": "a", "capability": "", "flow": middle, "payload": {"list": [1, 2]}})
    leader.turn()
    assert leader.payload(f"{flow}.a.0.m.0.x.1") == 2
    do(leader, f"{flow}.a.0.m.0.x.0", "one")
    events = do(leader, f"{flow}.a.0.m.0.x.1", "two")
    last = [event for event in events if isinstance(event, Settled)][-1]
    assert (last.task, result(last)) == (flow, {"a": {"m": {"x": ["one", "two"]}}})


# -- ends


def test_the_undo_of_an_element_gets_its_own_result_and_item(leader: Leader):
    flow = leader.flow(
        {
            "id": "a",
            "each": {"from": "inputs", "path": "list"},
            "compensate": {
                "capability": "plan",
                "payload": {"mine": {"from": "a", "path": "id"}, "item": {"from": "item"}},
            },
        },
        {"id": "b", "after": ["a"]},
        inputs={"list": ["p", "q"]},
    )
    do(leader, f"{flow}.a.1", {"id": "second"})
    do(leader, f"{flow}.a.0", {"id": "first"})
    do(leader, f"{flow}.b.0", error=Failure("Boom", "no", final=True))
    assert leader.payload(f"{flow}.undo.1") == {"mine": "first", "item": "p"}
    do(leader, f"{flow}.undo.1")
    assert leader.payload(f"{flow}.undo.2") == {"mine": "second", "item": "q"}
    settled = ending(do(leader, f"{flow}.undo.2"))
    assert (settled.state, settled.error) == ("failed", Failure("Boom", "step b: no"))


def test_an_output_that_cannot_be_made_fails_the_workflow_after_it_was_undone(leader: Leader):
    flow = leader.flow(
        {"id": "a", "compensate": {"capability": "plan"}}, output={"from": "a", "path": "x"}
    )
    do(leader, f"{flow}.a.0", {"y": 1})
    assert f"{flow}.undo.1" in leader.dispatched
    settled = ending(do(leader, f"{flow}.undo.1"))
    assert settled.error is not None
    assert (settled.state, settled.error.field) == ("failed", "output")


def test_a_cancelled_workflow_says_why(leader: Leader):
    flow = leader.flow({"id": "a"}, {"id": "b", "after": ["a"]})
    leader.turn()
    leader.command("cancel", flow, reason="enough")
    leader.finish(f"{flow}.a.0", error=Failure("Cancelled", "stopped", final=True))
    settled = [event for event in leader.turn() if isinstance(event, Settled)]
    assert [(event.task, event.state) for event in settled] == [
        (f"{flow}.a.0", "cancelled"),
        (flow, "cancelled"),
    ]
    assert settled[1].error == Failure("Cancelled", "enough")


def test_a_paused_workflow_hands_out_nothing_new_until_it_is_resumed(leader: Leader):
    flow = leader.flow(
        {"id": "a"},
        {"id": "b", "after": ["a"]},
        {"id": "c", "after": ["a"], "each": {"from": "inputs", "path": "list"}},
        inputs={"list": [1]},
    )
    leader.turn()
    leader.command("pause", flow)
    events = do(leader, f"{flow}.a.0")
    assert not [event for event in events if isinstance(event, Dispatch | Expanded)]
    leader.command("resume", flow)
    leader.turn()
    assert {f"{flow}.b.0", f"{flow}.c.0"} <= leader.dispatched.keys()


def test_cancelling_a_paused_workflow_lets_what_is_inside_it_go_on_with_its_undoing(
    leader: Leader,
):
    inner = {
        "steps": [
            {"id": "x", "capability": "plan", "compensate": {"capability": "plan"}},
            {"id": "y", "capability": "plan", "after": ["x"]},
        ]
    }
    flow = leader.flow({"id": "a", "capability": "", "flow": inner})
    do(leader, f"{flow}.a.0.x.0")
    leader.command("pause", flow)
    leader.finish(f"{flow}.a.0.y.0", error=Failure("Boom", "no", final=True))
    leader.turn()
    assert f"{flow}.a.0.undo.1" not in leader.dispatched
    leader.command("cancel", flow)
    leader.turn()
    assert f"{flow}.a.0.undo.1" in leader.dispatched
    settled = [event for event in do(leader, f"{flow}.a.0.undo.1") if isinstance(event, Settled)]
    assert [(event.task, event.state) for event in settled] == [
        (f"{flow}.a.0", "failed"),
        (flow, "cancelled"),
    ]


def test_a_result_in_the_blob_store_is_fetched_from_there(leader: Leader):
    flow = leader.flow({"id": "a"})
    found = leader.engine.state.flows[flow]
    blob = BlobRef("x", 1, "0" * 64)
    values = Values()
    values.put(flow, Source(9, blob=blob), "large")
    assert values.result(found, Result(9, None, blob)) == "large"
