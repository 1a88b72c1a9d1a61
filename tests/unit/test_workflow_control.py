"""Joins, gates, inner workflows, undoing and halting, one example each, in the fold."""

from __future__ import annotations

from typing import Any

import pytest

from callboard_broker.wire import Failure
from callboard_router.flow import plain_flow, restore_flow
from tests.simulation.story import Story


@pytest.fixture
def story() -> Story:
    told = Story()
    told.epoch()
    return told


def live(story: Story) -> set[str]:
    """Live tasks, without the id of their only workflow."""
    return {name.partition(".")[2] for name in story.state.tasks}


def refused(story: Story, verb: str, task: str, **body: Any) -> str:
    error = story.state.answers[story.command(verb, task, **body)].error
    return "" if error is None else error.message


# -- joins


def test_the_first_success_starts_the_step_and_cancels_the_others(story: Story):
    flow = story.flow({"id": "a"}, {"id": "b"}, {"id": "c", "after": ["a", "b"], "join": "any"})
    story.dispatch(f"{flow}.b.0")
    story.run(f"{flow}.a.0")
    assert live(story) == {"b.0", "c.0"}
    assert story.state.tasks[f"{flow}.b.0"].cancel is not None
    story.outcome(f"{flow}.b.0", error=Failure("Cancelled", "stopped"))
    story.settle(f"{flow}.b.0", "cancelled")
    assert story.state.flows[flow].failure is None
    story.run(f"{flow}.c.0")
    assert story.succeed(flow)


def test_a_loser_that_someone_else_needs_is_not_cancelled(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "after": ["a", "b"], "join": "any"},
        {"id": "d", "after": ["b"]},
    )
    story.run(f"{flow}.a.0")
    assert story.state.tasks[f"{flow}.b.0"].cancel is None


def test_a_loser_that_the_output_names_is_not_cancelled(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "after": ["a", "b"], "join": "any"},
        output={"from": "b"},
    )
    story.run(f"{flow}.a.0")
    assert story.state.tasks[f"{flow}.b.0"].cancel is None


def test_what_only_a_loser_waits_for_is_cancelled_too(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b"},
        {"id": "b2", "after": ["b"]},
        {"id": "c", "after": ["a", "b2"], "join": "any"},
    )
    story.run(f"{flow}.a.0")
    assert story.state.tasks[f"{flow}.b.0"].cancel is not None
    assert story.state.flows[flow].steps["b2"].fate == "skipped"


def test_what_a_loser_follows_item_by_item_is_cancelled_too(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b", "each": {"from": "a"}},
        {"id": "c"},
        {"id": "d", "after": ["b", "c"], "join": "any"},
    )
    story.expand(flow, "a", 2)
    story.run(f"{flow}.a.0")
    story.run(f"{flow}.c.0")
    cancelled = {name for name, task in story.state.tasks.items() if task.cancel is not None}
    assert cancelled == {f"{flow}.a.1", f"{flow}.b.0"}
    story.run(f"{flow}.a.1")
    assert live(story) == {"b.0", "d.0"}, "nothing follows it any more"


def test_k_of_n_counts_elements_of_all_its_sources(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b"},
        {"id": "c", "after": ["a", "b"], "join": 3},
    )
    story.expand(flow, "a", 4)
    story.run(f"{flow}.a.3")
    story.fail(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    assert "c.0" not in live(story)
    story.run(f"{flow}.a.1")
    assert "c.0" in live(story)
    assert story.state.tasks[f"{flow}.a.2"].cancel is not None
    assert story.state.flows[flow].failure is None, "the failure of a.0 is tolerated"


def test_a_join_that_cannot_be_satisfied_any_more_fails_at_once(story: Story):
    flow = story.flow(
        {"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d", "after": ["a", "b", "c"], "join": 2}
    )
    story.fail(f"{flow}.a.0")
    assert story.state.flows[flow].failure is None
    story.fail(f"{flow}.b.0")
    failure = story.state.flows[flow].failure
    assert failure is not None
    assert failure.type == "JoinFailed"
    assert "2 of the steps before it must succeed; 0 did and 2 did not" in failure.message


def test_a_join_whose_sources_were_all_skipped_is_skipped(story: Story):
    flow = story.flow({"id": "a"}, {"id": "b"}, {"id": "c", "after": ["a", "b"], "join": "any"})
    story.skip(f"{flow}.a.0")
    story.skip(f"{flow}.b.0")
    found = story.state.flows[flow]
    assert (found.failure, found.steps["c"].fate, found.open) == (None, "skipped", 0)


def test_best_effort_waits_for_every_end_and_tolerates_all_of_them(story: Story):
    flow = story.flow(
        {"id": "a"}, {"id": "b"}, {"id": "c", "after": ["a", "b"], "join": "best_effort"}
    )
    story.fail(f"{flow}.a.0")
    assert live(story) == {"b.0"}
    story.skip(f"{flow}.b.0")
    assert live(story) == {"c.0"}
    assert story.state.flows[flow].failure is None


def test_a_failure_that_only_some_dependents_tolerate_fails_the_workflow(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b", "after": ["a"], "join": "best_effort"},
        {"id": "c", "after": ["a"]},
    )
    story.fail(f"{flow}.a.0")
    assert story.state.flows[flow].failure is not None
    assert live(story) == {"b.0"}, "what copes with it goes on, e.g. to clean up"


def test_skipping_cascades_through_all_that_needs_everything(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b", "after": ["a"]},
        {"id": "c", "after": ["b"]},
        {"id": "d", "after": ["c"], "join": "best_effort"},
    )
    story.skip(f"{flow}.a.0")
    steps = story.state.flows[flow].steps
    assert [steps[name].fate for name in "bc"] == ["skipped", "skipped"]
    assert live(story) == {"d.0"}
    assert story.state.flows[flow].failure is None


def test_a_thousand_steps_in_a_row_are_skipped_without_a_deep_call(story: Story):
    steps: list[dict[str, Any]] = [{"id": "s0"}]
    steps += [{"id": f"s{number}", "after": [f"s{number - 1}"]} for number in range(1, 1000)]
    flow = story.flow(*steps)
    story.skip(f"{flow}.s0.0")
    assert story.state.flows[flow].steps["s999"].fate == "skipped"
    assert story.succeed(flow)


# -- limits of their own


def test_a_workflow_and_a_fan_out_may_limit_what_runs_at_the_same_time(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs", "path": "items"}, "at_once": 2}, at_once=5
    )
    story.expand(flow, "a", 3)
    need = story.state.tasks[f"{flow}.a.0"].need
    assert need.keys[-2:] == (f"flow/{flow}", f"flow/{flow}/a")
    for index in range(3):
        story.run(f"{flow}.a.{index}")
    assert story.state.accounts._own == {f"flow/{flow}": 5, f"flow/{flow}/a": 2}
    story.succeed(flow)
    assert story.state.accounts._own == {}


# -- inner workflows

INNER = {"steps": [{"id": "x", "capability": "plan"}], "output": {"from": "x"}}


def test_an_inner_workflow_takes_the_place_of_its_step_and_gives_its_result(story: Story):
    flow = story.flow(
        {"id": "a", "capability": "", "flow": INNER}, {"id": "b", "payload": {"from": "a"}}
    )
    assert story.enter(f"{flow}.a.0", {"n": 1})
    assert not story.enter(f"{flow}.a.0"), "it is entered once"
    assert live(story) == {"a.0.x.0"}
    inner = story.state.flows[f"{flow}.a.0"]
    assert (inner.parent, inner.step, inner.inputs[0].value) == (flow, "a", b'{"n": 1}')
    story.run(f"{flow}.a.0.x.0")
    assert story.succeed(f"{flow}.a.0", {"y": 2})
    assert live(story) == {"b.0"}
    assert story.state.flows[flow].steps["a"].results[0].value == b'{"y": 2}'


def test_the_failure_of_an_inner_workflow_is_that_of_its_step(story: Story):
    flow = story.flow({"id": "a", "capability": "", "flow": INNER})
    story.enter(f"{flow}.a.0")
    story.fail(f"{flow}.a.0.x.0")
    story.settle(f"{flow}.a.0", error=Failure("Boom", "step x: no"))
    assert story.state.flows[flow].failure == Failure("Boom", "step a: step x: no")
    assert story.settle(flow)


def test_elements_with_inner_workflows_are_entered_a_few_at_a_time(story: Story):
    flow = story.flow(
        {
            "id": "a",
            "capability": "",
            "flow": INNER,
            "each": {"from": "inputs", "path": "items"},
            "at_once": 2,
        }
    )
    story.expand(flow, "a", 5)
    assert live(story) == {"a.0", "a.1"}
    story.enter(f"{flow}.a.1")
    story.run(f"{flow}.a.1.x.0")
    story.succeed(f"{flow}.a.1", 1)
    assert live(story) == {"a.0", "a.2"}
    story.skip(f"{flow}.a.0")
    assert live(story) == {"a.2", "a.3"}


def test_cancelling_reaches_the_tasks_of_inner_workflows(story: Story):
    flow = story.flow({"id": "a", "capability": "", "flow": INNER})
    story.enter(f"{flow}.a.0")
    story.dispatch(f"{flow}.a.0.x.0")
    story.command("cancel", flow, reason="enough")
    assert story.state.tasks[f"{flow}.a.0.x.0"].cancel == "enough"
    assert story.state.flows[f"{flow}.a.0"].ending == "cancelled"


def test_an_inner_workflow_that_is_entered_too_late_is_cancelled_at_once(story: Story):
    flow = story.flow({"id": "a", "capability": "", "flow": INNER})
    story.command("cancel", flow, reason="enough")
    assert story.enter(f"{flow}.a.0"), "the router had written it before it read the cancel"
    assert story.state.tasks[f"{flow}.a.0.x.0"].cancel == "enough"


def test_a_loser_that_is_an_inner_workflow_is_halted(story: Story):
    flow = story.flow(
        {"id": "a"},
        {"id": "b", "capability": "", "flow": INNER},
        {"id": "c", "capability": "", "flow": INNER},
        {"id": "d", "after": ["a", "b"], "join": "any"},
    )
    story.enter(f"{flow}.b.0")
    story.enter(f"{flow}.c.0")
    story.run(f"{flow}.a.0")
    assert story.state.flows[f"{flow}.b.0"].ending == "cancelled"
    assert story.state.flows[f"{flow}.c.0"].ending is None
    story.settle(f"{flow}.b.0.x.0", "cancelled")
    story.settle(f"{flow}.b.0", "cancelled")
    assert story.state.flows[flow].failure is None


# -- gates and signals


def test_a_gate_waits_for_its_approval(story: Story):
    flow = story.flow(
        {"id": "ask", "capability": "", "gate": {"prompt": "?"}}, {"id": "b", "after": ["ask"]}
    )
    gate = story.state.tasks[f"{flow}.ask.0"]
    assert gate.is_gate
    assert gate.decided is None
    assert not refused(story, "approve", flow, by="ann")
    assert gate.decided is not None
    story.settle(gate.id, "succeeded", result={"approved": True})
    assert live(story) == {"b.0"}


def test_a_signal_opens_the_gates_that_wait_for_it_and_is_kept_for_those_to_come(story: Story):
    gate = {"kind": "signal", "signal": "paid"}
    inner = {"steps": [{"id": "x", "gate": gate}]}
    flow = story.flow(
        {"id": "g", "capability": "", "gate": gate},
        {"id": "h", "capability": "", "gate": gate, "after": ["g"]},
        {"id": "i", "capability": "", "flow": inner, "after": ["g"]},
    )
    assert not refused(story, "signal", flow, name="paid", payload={"sum": 3})
    first = story.state.tasks[f"{flow}.g.0"].decided
    assert first is not None
    assert first.value == b'{"sum": 3}'
    story.settle(f"{flow}.g.0", "succeeded", result={"sum": 3})
    assert story.state.tasks[f"{flow}.h.0"].decided == first
    story.enter(f"{flow}.i.0")
    assert story.state.tasks[f"{flow}.i.0.x.0"].decided == first


def test_a_signal_reaches_gates_of_inner_workflows(story: Story):
    gate = {"kind": "signal", "signal": "paid"}
    flow = story.flow({"id": "i", "capability": "", "flow": {"steps": [{"id": "x", "gate": gate}]}})
    story.enter(f"{flow}.i.0")
    story.command("signal", flow, name="paid")
    decided = story.state.tasks[f"{flow}.i.0.x.0"].decided
    assert decided is not None
    assert decided.value == b"null"


def test_a_signal_that_no_gate_waits_for_is_refused_with_those_that_are(story: Story):
    flow = story.flow({"id": "g", "capability": "", "gate": {"kind": "signal", "signal": "paid"}})
    assert "'late'; signals are: paid" in refused(story, "signal", flow, name="late")


# -- undoing


def undo(capability: str = "plan") -> dict[str, Any]:
    return {"capability": capability, "payload": {"of": {"from": "inputs"}}}


def test_what_succeeded_is_undone_in_reverse_order_one_after_the_other(story: Story):
    flow = story.flow(
        {"id": "a", "compensate": undo("undo.a")},
        {"id": "b", "compensate": undo("undo.b")},
        {"id": "c"},
        {"id": "d", "after": ["a", "b", "c"]},
    )
    for name in ("b", "c", "a"):
        story.run(f"{flow}.{name}.0")
    story.fail(f"{flow}.d.0")
    assert live(story) == {"undo.1"}
    assert story.state.tasks[f"{flow}.undo.1"].capability == "undo.a"
    assert not story.settle(flow), "nothing is settled before all is undone"
    story.run(f"{flow}.undo.1")
    assert story.state.tasks[f"{flow}.undo.2"].capability == "undo.b"
    story.run(f"{flow}.undo.2")
    assert not live(story)
    assert story.settle(flow)


def test_an_undo_that_fails_is_noted_and_the_rest_go_on(story: Story):
    flow = story.flow(
        {"id": "a", "compensate": undo()}, {"id": "b", "compensate": undo()}, {"id": "c"}
    )
    story.run(f"{flow}.a.0")
    story.run(f"{flow}.b.0")
    story.fail(f"{flow}.c.0")
    story.fail(f"{flow}.undo.1")
    story.run(f"{flow}.undo.2")
    found = story.state.flows[flow]
    assert found.failure is not None
    assert found.failure.message == "step c: no; b.0 could not be undone: Boom: no"
    assert found.steps["a"].undone == [0]
    assert found.steps["b"].undone == []


def test_nothing_is_undone_while_something_still_runs(story: Story):
    flow = story.flow({"id": "a", "compensate": undo()}, {"id": "b"}, {"id": "c"})
    story.run(f"{flow}.a.0")
    story.dispatch(f"{flow}.b.0")
    story.fail(f"{flow}.c.0")
    assert live(story) == {"b.0"}
    story.outcome(f"{flow}.b.0")
    assert live(story) == {"undo.1"}


def test_a_cancelled_workflow_is_undone_too(story: Story):
    flow = story.flow({"id": "a", "compensate": undo()}, {"id": "b"})
    story.run(f"{flow}.a.0")
    story.command("cancel", flow)
    story.settle(f"{flow}.b.0", "cancelled")
    assert live(story) == {"undo.1"}
    assert story.state.tasks[f"{flow}.undo.1"].cancel is None
    story.run(f"{flow}.undo.1")
    assert story.settle(flow, "cancelled")


def test_cancelling_a_workflow_that_undoes_itself_does_not_stop_that(story: Story):
    flow = story.flow({"id": "a", "compensate": undo()}, {"id": "b", "after": ["a"]})
    story.run(f"{flow}.a.0")
    story.fail(f"{flow}.b.0")
    story.command("cancel", flow)
    assert story.state.tasks[f"{flow}.undo.1"].cancel is None
    story.run(f"{flow}.undo.1")
    assert story.state.flows[flow].ending is None
    assert story.settle(flow)


def test_a_workflow_whose_output_cannot_be_made_is_undone_before_it_fails(story: Story):
    flow = story.flow({"id": "a", "compensate": undo()})
    story.run(f"{flow}.a.0")
    assert story.expand(flow, "", 0, Failure("BadInput", "no such thing", field="output"))
    assert live(story) == {"undo.1"}
    story.run(f"{flow}.undo.1")
    assert story.settle(flow)


# -- halting, and what keeps a workflow open


def test_cancelling_marks_what_is_live_and_drops_what_has_not_begun(story: Story):
    flow = story.flow(
        {"id": "a"}, {"id": "b", "each": {"from": "inputs"}}, {"id": "c", "after": ["a"]}
    )
    story.dispatch(f"{flow}.a.0")
    story.command("cancel", flow, reason="enough")
    assert not story.state.to_expand
    assert story.state.tasks[f"{flow}.a.0"].cancel == "enough"
    story.outcome(f"{flow}.a.0", "in time")
    assert not live(story), "c does not begin any more"
    assert story.state.flows[flow].steps["a"].results[0].value == b'"in time"'
    assert story.settle(flow, "cancelled")


def test_a_workflow_that_expires_ends_as_expired(story: Story):
    flow = story.flow({"id": "a"}, timeout=5)
    assert story.state.flows[flow].expires_at == story.at_ms + 5000
    assert story.halt(flow)
    story.settle(f"{flow}.a.0", "cancelled")
    found = story.state.flows[flow]
    assert (found.ending, found.reason, found.open) == ("expired", "late", 0)


def test_a_spawned_task_keeps_its_workflow_open_and_its_failure_does_not_fail_it(story: Story):
    flow = story.flow({"id": "a"})
    parent = f"{flow}.a.0"
    story.dispatch(parent)
    child = story.post(parent={"task": parent, "attempt": 1, "secret": "secret-1"})
    story.outcome(parent)
    assert not story.succeed(flow)
    story.fail(child)
    assert story.state.flows[flow].failure is None
    assert story.succeed(flow)


def test_cancelling_reaches_spawned_tasks_whose_parent_has_ended(story: Story):
    flow = story.flow({"id": "a"}, {"id": "b"})
    parent = f"{flow}.a.0"
    story.dispatch(parent)
    child = story.post(parent={"task": parent, "attempt": 1, "secret": "secret-1"})
    story.outcome(parent)
    story.command("cancel", flow)
    assert story.state.tasks[child].cancel is not None


def test_a_live_workflow_is_written_down_and_read_again(story: Story):
    flow = story.flow(
        {"id": "a", "each": {"from": "inputs"}, "compensate": undo()},
        {"id": "b", "after": ["a"], "join": 2, "when": {"from": "a", "path": "0"}},
        {"id": "c", "capability": "", "flow": INNER},
        inputs={"x": 1},
        output={"from": "b"},
        at_once=3,
    )
    story.expand(flow, "a", 4)
    story.run(f"{flow}.a.2", "x" * 5000)
    story.fail(f"{flow}.a.0")
    story.enter(f"{flow}.c.0")
    found = story.state.flows[flow]
    plain = plain_flow(found)
    again = restore_flow(plain)
    assert plain_flow(again) == plain
    assert again.graph == found.graph
    assert again.steps["a"].results == found.steps["a"].results
    assert again.nested == found.nested
