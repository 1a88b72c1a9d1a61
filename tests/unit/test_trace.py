"""The trace of a task and the root it hangs on, from the post to the dispatch of all its parts."""

from __future__ import annotations

import re

import pytest

from callboard_broker.errors import BadInput
from callboard_broker.options import check_trace
from callboard_broker.trace import Origin, trace_of
from callboard_broker.wire import decode_flow_run, decode_post
from callboard_router.snapshot import digest, dump, load
from callboard_router.state import Task
from tests.simulation.story import Story

GIVEN = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def story() -> Story:
    told = Story()
    told.epoch()
    return told


def origin(task: Task) -> tuple[str, str]:
    """The root and the trace, as a host makes them of the dispatch."""
    found = Origin("cb", task.root, task.trace)
    return found.root_of(task.id), found.trace_of(task.id)


def spawn(story: Story, parent: str, **body: object) -> Task:
    """A child of the first attempt of a task."""
    named = {"task": parent, "attempt": 1, "secret": "secret-1"}
    return story.state.tasks[story.post(parent=named, **body)]


def test_a_trace_is_made_of_board_and_root_alone():
    assert re.fullmatch("[0-9a-f]{32}", trace_of("cb", "17"))
    assert trace_of("cb", "17") == Origin("cb").trace_of("17.plan.3")
    assert len({trace_of("cb", "17"), trace_of("cb", "18"), trace_of("other", "17")}) == 3


@pytest.mark.parametrize("wrong", ["", "0" * 32, GIVEN.upper(), GIVEN[:-1], GIVEN + "0", "x" * 32])
def test_what_is_no_trace_is_refused_by_poster_and_reader(wrong: str):
    with pytest.raises(BadInput, match="trace"):
        check_trace(wrong)
    with pytest.raises(BadInput, match="trace"):
        decode_post(b'{"trace": "%b"}' % wrong.encode())
    body = b'{"name": "n", "steps": [{"id": "a", "capability": "c"}], "trace": "%b"}'
    with pytest.raises(BadInput, match="trace"):
        decode_flow_run(body % wrong.encode())
    assert check_trace(GIVEN) == decode_post(b'{"trace": "%b"}' % GIVEN.encode()).trace


def test_what_a_task_spawns_and_what_that_spawns_shares_its_root_and_trace(story: Story):
    root = story.post()
    story.dispatch(root)
    child = spawn(story, root)
    story.dispatch(child.id)
    grandchild = spawn(story, child.id)
    assert origin(child) == origin(grandchild) == (root, trace_of("cb", root))
    own = spawn(story, child.id, trace=GIVEN)
    assert origin(own) == (root, GIVEN)


def test_a_trace_that_is_given_holds_for_children_as_well(story: Story):
    root = story.post(trace=GIVEN)
    story.dispatch(root)
    child = spawn(story, root)
    story.run(root)  # the parent is over: the child knows all the same
    story.dispatch(child.id)
    assert origin(spawn(story, child.id)) == origin(child) == (root, GIVEN)


def test_steps_of_workflows_inside_and_what_undoes_them_share_the_trace(story: Story):
    inner = {"id": "in", "capability": "", "flow": {"steps": [{"id": "x", "capability": "plan"}]}}
    undo = {"id": "a", "compensate": {"capability": "plan"}}
    flow = story.flow(undo, inner, {"id": "b", "after": ["a"]}, trace=GIVEN)
    assert origin(story.state.tasks[f"{flow}.a.0"]) == (flow, GIVEN)
    story.enter(f"{flow}.in.0")
    assert origin(story.state.tasks[f"{flow}.in.0.x.0"]) == (flow, GIVEN)
    story.run(f"{flow}.in.0.x.0")
    story.succeed(f"{flow}.in.0")
    story.run(f"{flow}.a.0")
    story.fail(f"{flow}.b.0")
    assert origin(story.state.tasks[f"{flow}.undo.1"]) == (flow, GIVEN)


def test_each_time_of_a_schedule_is_a_root_of_its_own(story: Story):
    schedule = story.post(cron={"expression": "* * * * *"})
    story.fire(schedule, 1, 60_000)
    first = f"{schedule}.cron.1"
    assert origin(story.state.tasks[first]) == (first, trace_of("cb", first))
    story.dispatch(first)
    assert origin(spawn(story, first)) == (first, trace_of("cb", first))


def test_a_snapshot_keeps_roots_and_traces_and_is_as_before_where_there_are_none(story: Story):
    flow = story.flow({"id": "a"}, trace=GIVEN)
    plain = story.flow({"id": "a"})
    story.dispatch(f"{plain}.a.0")
    spawn(story, f"{plain}.a.0")
    again = load(dump(story.state))
    assert digest(again) == digest(story.state)
    assert again.flows[flow].trace == GIVEN
    assert {task.root for task in again.tasks.values()} == {"", plain}
