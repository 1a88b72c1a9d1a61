"""What of a workflow that ended without success runs again, and what stays."""

from __future__ import annotations

from typing import Any

import pytest

from callboard_broker.wire import Failure
from tests.simulation.story import Story


@pytest.fixture
def story() -> Story:
    told = Story()
    told.epoch()
    return told


def live(story: Story) -> set[str]:
    """Live tasks, without the id of their only workflow."""
    return {name.partition(".")[2] for name in story.state.tasks}


def resume(story: Story, flow: str, **body: Any) -> Failure | None:
    command = story.command("resume", flow, **body)
    return story.state.answers[command].error


def test_only_what_failed_and_what_depends_on_it_runs_again(story: Story):
    flow = story.flow({"id": "a"}, {"id": "b"}, {"id": "c", "after": ["a"]}, {"id": "d"})
    story.run(f"{flow}.b.0", "kept")
    story.run(f"{flow}.d.0")
    story.fail(f"{flow}.a.0")
    story.settle(flow)
    assert resume(story, flow) is None
    assert live(story) == {"a.0"}
    found = story.state.flows[flow]
    assert (found.generation, found.failure, found.ending) == (1, None, None)
    assert found.steps["b"].results[0].value == b'"kept"'
    story.run(f"{flow}.a.0", attempt=2)
    assert live(story) == {"c.0"}
    story.run(f"{flow}.c.0")
    assert story.succeed(flow)
    assert not story.state.dead_flows


def test_attempts_are_counted_on_so_that_an_old_outcome_is_never_taken_for_a_new_one(story: Story):
    flow = story.flow({"id": "a"})
    story.fail(f"{flow}.a.0")
    story.settle(flow)
    resume(story, flow)
    task = story.state.tasks[f"{flow}.a.0"]
    assert (task.life.attempt, task.life.generation) == (1, 1)
    assert not story.dispatch(task.id, 1)
    assert story.dispatch(task.id, 2)
    assert not story.outcome(task.id, attempt=1)


def test_from_a_step_on_every_result_is_dropped_and_the_others_stay(story: Story):
    flow = story.flow(
        {"id": "a"}, {"id": "b", "after": ["a"]}, {"id": "c", "after": ["b"]}, {"id": "d"}
    )
    for name in ("a", "b", "d"):
        story.run(f"{flow}.{name}.0")
    story.fail(f"{flow}.c.0")
    story.settle(flow)
    assert resume(story, flow, source="b") is None
    assert live(story) == {"b.0"}
    assert story.run(f"{flow}.b.0", attempt=2)
    assert live(story) == {"c.0"}


def test_a_failed_element_runs_again_alone_and_what_follows_it_item_by_item(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b", "each": {"from": "a"}},
        {"id": "c", "after": ["b"]},
    )
    story.expand(flow, "a", 3)
    for index in (0, 2):
        story.run(f"{flow}.a.{index}")
        story.run(f"{flow}.b.{index}")
    story.fail(f"{flow}.a.1")
    story.settle(flow)
    assert resume(story, flow) is None
    assert live(story) == {"a.1"}
    story.run(f"{flow}.a.1", attempt=2)
    assert live(story) == {"b.1"}
    story.run(f"{flow}.b.1")
    assert live(story) == {"c.0"}


def test_a_failure_that_its_dependents_coped_with_does_not_run_again(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "after": ["a", "b"], "join": "best_effort"},
        {"id": "d", "after": ["c"]},
    )
    story.fail(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    story.run(f"{flow}.c.0")
    story.fail(f"{flow}.d.0")
    story.settle(flow)
    resume(story, flow)
    assert live(story) == {"d.0"}


def test_a_failure_that_was_coped_with_runs_again_before_a_dependent_that_does(story: Story):
    flow = story.flow(
        {"id": "a"}, {"id": "b"}, {"id": "c", "after": ["a", "b"], "join": "best_effort"}
    )
    story.fail(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    story.fail(f"{flow}.c.0")
    story.settle(flow)
    resume(story, flow)
    assert "a.0" in live(story)


def test_a_join_that_has_chosen_does_not_choose_again(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "after": ["a", "b"], "join": "any"},
        {"id": "d", "after": ["c"]},
    )
    story.run(f"{flow}.a.0")
    story.settle(f"{flow}.b.0", "cancelled")
    story.run(f"{flow}.c.0")
    story.fail(f"{flow}.d.0")
    story.settle(flow)
    resume(story, flow)
    assert live(story) == {"d.0"}


def test_a_fan_out_without_a_list_is_counted_again(story: Story):
    flow = story.flow({"id": "a", "each": {"from": "inputs", "path": "items"}})
    story.expand(flow, "a", 0, Failure("BadInput", "no list"))
    story.settle(flow)
    assert resume(story, flow, payload={"items": [1]}) is None
    assert list(story.state.to_expand) == [(flow, "a")]
    assert story.expand(flow, "a", 1)
    assert live(story) == {"a.0"}


def test_a_cancelled_workflow_goes_on_where_it_was(story: Story):
    flow = story.flow(
        {"id": "a"}, {"id": "b", "after": ["a"]}, {"id": "c", "each": {"from": "inputs"}}
    )
    story.run(f"{flow}.a.0")
    story.command("cancel", flow)
    story.settle(f"{flow}.b.0", "cancelled")
    assert not story.state.to_expand
    assert story.settle(flow, "cancelled")
    assert resume(story, flow) is None
    assert live(story) == {"b.0"}
    assert list(story.state.to_expand) == [(flow, "c")]


def test_steps_that_were_undone_run_again_and_what_was_made_of_them(story: Story):
    flow = story.flow(
        {"id": "a", "compensate": {"capability": "plan"}},
        {"id": "b", "after": ["a"]},
        {"id": "c"},
        {"id": "d", "after": ["b", "c"]},
    )
    story.run(f"{flow}.c.0")
    story.run(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    story.fail(f"{flow}.d.0")
    assert live(story) == {"undo.1"}
    story.run(f"{flow}.undo.1")
    story.settle(flow)
    resume(story, flow)
    assert live(story) == {"a.0"}
    story.run(f"{flow}.a.0", attempt=2)
    assert live(story) == {"b.0"}


def test_what_was_made_without_a_failed_step_is_made_again_with_it(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b", "after": ["a"], "join": "best_effort"},
        {"id": "c", "after": ["a"]},
        {"id": "d", "after": ["c"], "join": "best_effort"},
        {"id": "e", "after": ["c"]},
    )
    story.fail(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    story.run(f"{flow}.d.0")
    story.settle(flow)
    resume(story, flow)
    assert live(story) == {"a.0"}
    story.run(f"{flow}.a.0", attempt=2)
    assert live(story) == {"b.0", "c.0"}
    story.run(f"{flow}.c.0")
    assert live(story) == {"b.0", "d.0", "e.0"}


def test_what_was_made_without_a_list_is_made_again_once_it_is_there(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b", "after": ["a"], "join": "best_effort"},
        {"id": "c", "after": ["a"]},
    )
    story.expand(flow, "a", 0, Failure("BadInput", "no list"))
    story.run(f"{flow}.b.0")
    story.settle(flow)
    resume(story, flow, payload={"items": []})
    story.expand(flow, "a", 0)
    assert live(story) == {"b.0", "c.0"}


def test_attempts_are_counted_on_when_a_failed_step_is_named_to_start_from(story: Story):
    flow = story.flow({"id": "a"})
    story.fail(f"{flow}.a.0")
    story.settle(flow)
    resume(story, flow, source="a")
    assert story.state.tasks[f"{flow}.a.0"].life.attempt == 1


def test_the_undo_of_an_inner_workflow_that_begins_anew_counts_its_attempts_on(story: Story):
    steps = [{"id": "x", "capability": "plan", "compensate": {"capability": "plan"}}]
    inner = {"steps": [*steps, {"id": "y", "capability": "plan", "after": ["x"]}]}
    flow = story.flow({"id": "a", "capability": "", "flow": inner})
    for attempt in (1, 2):
        story.enter(f"{flow}.a.0")
        story.run(f"{flow}.a.0.x.0", attempt=attempt)
        story.fail(f"{flow}.a.0.y.0", attempt=attempt)
        assert story.run(f"{flow}.a.0.undo.1", attempt=attempt)
        story.settle(f"{flow}.a.0")
        story.settle(flow)
        resume(story, flow, payload={"n": attempt})


def test_a_signal_is_waited_for_again_when_its_gate_runs_again(story: Story):
    gate = {"kind": "signal", "signal": "paid"}
    flow = story.flow({"id": "g", "capability": "", "gate": gate}, {"id": "b", "after": ["g"]})
    story.command("signal", flow, name="paid")
    story.settle(f"{flow}.g.0", "succeeded")
    story.fail(f"{flow}.b.0")
    story.settle(flow)
    resume(story, flow, source="g")
    assert story.state.tasks[f"{flow}.g.0"].decided is None


def test_a_step_that_goes_item_by_item_starts_again_from_a_kept_list(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b", "each": {"from": "a"}, "join": "best_effort"},
        {"id": "c", "after": ["b"], "join": "best_effort"},
        {"id": "d", "after": ["c"]},
    )
    story.expand(flow, "a", 2)
    story.run(f"{flow}.a.0")
    story.fail(f"{flow}.a.1")
    story.run(f"{flow}.b.0")
    story.run(f"{flow}.c.0")
    story.fail(f"{flow}.d.0")
    story.settle(flow)
    resume(story, flow, source="b")
    assert live(story) == {"a.1", "b.0"}
    story.fail(f"{flow}.a.1", attempt=2)
    story.run(f"{flow}.b.0", attempt=2)
    assert live(story) == {"c.0"}


def test_what_was_not_undone_a_second_time_does_not_run_again(story: Story):
    flow = story.flow({"id": "a", "compensate": {"capability": "plan"}}, {"id": "b"})
    story.run(f"{flow}.a.0")
    story.fail(f"{flow}.b.0")
    story.run(f"{flow}.undo.1")
    story.settle(flow)
    resume(story, flow)
    story.run(f"{flow}.a.0", attempt=2)
    story.fail(f"{flow}.b.0", attempt=2)
    story.fail(f"{flow}.undo.2")
    story.settle(flow)
    resume(story, flow)
    assert live(story) == {"b.0"}


def test_a_join_that_chose_sees_what_has_come_since_when_it_runs_again(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "after": ["a", "b"], "join": "any"},
        output=[{"from": "b"}, {"from": "c"}],
    )
    story.run(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    steps = story.state.flows[flow].steps
    assert steps["c"].begun < steps["b"].results[0].seq
    story.fail(f"{flow}.c.0")
    story.settle(flow)
    resume(story, flow)
    assert live(story) == {"c.0"}
    assert steps["c"].begun > steps["b"].results[0].seq


def test_a_failed_inner_workflow_goes_on_where_it_was(story: Story):
    inner = {"steps": [{"id": "x", "capability": "plan"}, {"id": "y", "capability": "plan"}]}
    flow = story.flow({"id": "a", "capability": "", "flow": inner}, {"id": "b"})
    story.enter(f"{flow}.a.0")
    story.run(f"{flow}.a.0.x.0")
    story.fail(f"{flow}.a.0.y.0")
    story.run(f"{flow}.b.0")
    assert story.settle(f"{flow}.a.0")
    assert story.settle(flow)
    assert not story.state.flows
    assert resume(story, flow) is None
    assert set(story.state.flows) == {flow, f"{flow}.a.0"}
    assert live(story) == {"a.0.y.0"}
    story.run(f"{flow}.a.0.y.0", attempt=2)
    assert story.succeed(f"{flow}.a.0", {"done": True})
    assert story.succeed(flow)


def test_an_inner_workflow_with_other_inputs_begins_anew_and_counts_its_attempts_on(story: Story):
    inner = {"steps": [{"id": "x", "capability": "plan"}, {"id": "y", "capability": "plan"}]}
    flow = story.flow({"id": "a", "capability": "", "flow": inner})
    story.enter(f"{flow}.a.0")
    story.dispatch(f"{flow}.a.0.x.0")
    story.lose(f"{flow}.a.0.x.0")
    story.run(f"{flow}.a.0.x.0", attempt=2)
    story.fail(f"{flow}.a.0.y.0")
    story.settle(f"{flow}.a.0")
    story.settle(flow)
    resume(story, flow, payload={"n": 2})
    assert live(story) == {"a.0"}
    story.enter(f"{flow}.a.0", {"n": 2})
    assert live(story) == {"a.0.x.0", "a.0.y.0"}
    assert story.state.tasks[f"{flow}.a.0.x.0"].life.attempt == 2
    assert story.state.tasks[f"{flow}.a.0.y.0"].life.attempt == 2, "of all of them, the highest"


@pytest.mark.parametrize(
    ("body", "field"),
    [({"source": "z"}, "from"), ({"payload": [1]}, "payload")],
)
def test_what_cannot_be_resumed_is_refused_and_changes_nothing(
    story: Story, body: dict[str, Any], field: str
):
    flow = story.flow({"id": "a"})
    story.fail(f"{flow}.a.0")
    story.settle(flow)
    error = resume(story, flow, **body)
    assert error is not None
    assert error.field == field
    assert list(story.state.dead_flows) == [flow]
    assert not story.state.flows
    assert story.state.dead_flows[flow][1].generation == 0


def test_edited_inputs_lie_over_the_old_ones(story: Story):
    flow = story.flow({"id": "a"}, inputs={"x": 1})
    story.fail(f"{flow}.a.0")
    story.settle(flow)
    resume(story, flow, payload={"y": 2})
    assert [found.value for found in story.state.flows[flow].inputs] == [b'{"x": 1}', b'{"y": 2}']


def test_a_new_generation_has_its_whole_time_again(story: Story):
    flow = story.flow({"id": "a"}, timeout=10)
    story.fail(f"{flow}.a.0")
    story.settle(flow)
    story.at_ms += 60_000
    resume(story, flow)
    assert story.state.flows[flow].expires_at == story.at_ms + 10_000


def test_no_more_failed_inner_workflows_go_on_at_once_than_their_step_allows(story: Story):
    inner = {"steps": [{"id": "x", "capability": "plan"}]}
    step = {"id": "a", "capability": "", "flow": inner, "at_once": 2}
    flow = story.flow({**step, "each": {"from": "inputs", "path": "n"}}, inputs={"n": [1, 2, 3]})
    story.expand(flow, "a", 3)
    for index in range(3):
        story.enter(f"{flow}.a.{index}")
        story.fail(f"{flow}.a.{index}.x.0")
        story.settle(f"{flow}.a.{index}")
    story.settle(flow)
    resume(story, flow)
    assert live(story) == {"a.0.x.0", "a.1.x.0"}
    story.run(f"{flow}.a.0.x.0", attempt=2)
    story.succeed(f"{flow}.a.0")
    assert live(story) == {"a.1.x.0", "a.2.x.0"}
