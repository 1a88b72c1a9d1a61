"""How a workflow goes on in the fold: each step as soon as its own needs are met, no barrier."""

from __future__ import annotations

import pytest

from callboard_broker.wire import Failure
from callboard_router.flow import INLINE
from tests.simulation.story import Story


@pytest.fixture
def story() -> Story:
    told = Story()
    told.epoch()
    return told


def test_a_step_starts_when_its_own_needs_are_met_and_not_before(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "payload": {"x": {"from": "a"}}},
        {"id": "d", "after": ["b", "c"]},
    )
    assert story.state.tasks.keys() == {f"{flow}.a.0", f"{flow}.b.0"}
    story.run(f"{flow}.a.0")
    assert f"{flow}.c.0" in story.state.tasks, "it does not wait for b"
    story.run(f"{flow}.c.0")
    assert f"{flow}.d.0" not in story.state.tasks
    story.run(f"{flow}.b.0")
    assert f"{flow}.d.0" in story.state.tasks


def test_a_fan_out_over_a_fan_out_goes_element_by_element(story: Story):
    flow = _fan_out(story, {"id": "c", "payload": {"all": {"from": "b"}}})
    story.run(f"{flow}.a.1")
    assert {name for name in story.state.tasks if ".b." in name} == {f"{flow}.b.1"}
    story.run(f"{flow}.b.1")
    story.run(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    assert f"{flow}.c.0" not in story.state.tasks
    story.run(f"{flow}.a.2")
    story.run(f"{flow}.b.2")
    assert f"{flow}.c.0" in story.state.tasks


def test_an_element_that_has_failed_is_not_started_again_when_the_list_is_complete(story: Story):
    flow = _fan_out(story)
    story.run(f"{flow}.a.0")
    story.fail(f"{flow}.b.0")
    story.run(f"{flow}.a.1")
    story.run(f"{flow}.a.2")
    assert f"{flow}.b.0" not in story.state.tasks
    assert story.state.flows[flow].open == 2


def test_a_failed_step_ends_the_workflow_only_when_nothing_else_runs(story: Story):
    flow = story.flow({"id": "a"}, {"id": "b"}, {"id": "c", "after": ["a"]})
    story.fail(f"{flow}.a.0")
    assert not story.settle(flow), "b still runs"
    story.run(f"{flow}.b.0")
    assert story.state.flows[flow].failure == Failure("Boom", "step a: no")
    assert story.settle(flow)
    assert not story.state.flows


def test_a_fan_out_over_nothing_is_complete_at_once(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b", "each": {"from": "a"}},
        {"id": "c", "after": ["b"]},
    )
    assert story.expand(flow, "a", 0)
    assert story.state.tasks.keys() == {f"{flow}.c.0"}


def test_a_fan_out_is_expanded_once(story: Story):
    flow = story.flow({"id": "a", "each": {"from": "inputs", "path": "items"}})
    assert story.expand(flow, "a", 2)
    assert not story.expand(flow, "a", 3)
    assert len(story.state.tasks) == 2


def test_a_fan_out_without_a_list_fails_the_workflow(story: Story):
    flow = story.flow({"id": "a", "each": {"from": "inputs", "path": "items"}}, {"id": "b"})
    story.expand(flow, "a", 0, Failure("BadInput", "no list", field="each"))
    story.run(f"{flow}.b.0")
    failure = story.state.flows[flow].failure
    assert failure is not None
    assert failure.field == "a.each"
    assert story.state.to_expand == {}


def test_a_long_result_is_kept_by_reference(story: Story):
    flow = story.flow({"id": "a"}, {"id": "b"})
    story.run(f"{flow}.a.0", "x" * INLINE)
    story.run(f"{flow}.b.0", "short")
    steps = story.state.flows[flow].steps
    assert (steps["a"].results[0].value, steps["a"].results[0].seq) == (None, 4)
    assert steps["b"].results[0].value == b'"short"'


def test_a_workflow_that_cannot_run_waits_to_be_failed(story: Story):
    name = story.flow({"id": "a", "after": ["a"]})
    failure = story.state.tasks[name].life.failure
    assert failure is not None
    assert (failure.field, "cycle" in failure.message) == ("steps", True)
    assert not story.state.flows


def test_an_ended_workflow_is_named_once_more_so_that_its_values_are_dropped(story: Story):
    flow = story.flow({"id": "a"})
    story.run(f"{flow}.a.0")
    story.state.fresh.clear()
    assert story.succeed(flow)
    assert list(story.state.fresh) == [flow]


def _fan_out(story: Story, *more: dict[str, object]) -> str:
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b", "each": {"from": "a"}},
        *more,
    )
    story.expand(flow, "a", 3)
    return flow
