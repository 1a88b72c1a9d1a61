"""Checkpoints in the router: which one counts, who is given it, and how long it stays."""

from __future__ import annotations

import msgspec
import pytest

from callboard_broker.rule import MAX_CHECKPOINTS
from callboard_broker.wire import Checkpoint, Dispatch, Failure, Limit, encode
from callboard_router.desk import Policy
from callboard_router.flow import INLINE
from callboard_router.snapshot import digest, dump, floor, load
from tests.simulation.leader import Leader
from tests.simulation.story import Story

RETRY = {"retry": {"attempts": 3, "delay": 0}}


@pytest.fixture
def story() -> Story:
    told = Story()
    told.epoch()
    return told


@pytest.fixture
def leader() -> Leader:
    led = Leader(Policy(limits={"global": Limit(concurrency=10)})).lead()
    led.host("h", "plan", slots=5)
    return led


def kept(story: Story, task: str) -> bytes | None:
    found = story.state.tasks[task].checkpoint
    return None if found is None else found.value


def test_the_last_one_of_the_attempt_counts(story: Story):
    task = story.post()
    assert not story.checkpoint(task, 0), "nothing runs yet"
    story.dispatch(task)
    assert story.checkpoint(task, 1)
    assert story.checkpoint(task, 3, number=3)
    assert not story.checkpoint(task, 2, number=2), "it was overtaken"
    assert not story.checkpoint(task, 9, number=3), "it is a repeat"
    assert not story.checkpoint(task, 9, number=4, secret="forged")  # noqa: S106  not one
    assert not story.checkpoint(task, 9, number=4, tenant="other")
    assert not story.checkpoint(task, 9, number=MAX_CHECKPOINTS + 1)
    assert kept(story, task) == b"3"
    assert story.state.void == 6
    assert digest(story.again()) == digest(story.state)


def test_one_of_a_lost_attempt_comes_too_late(story: Story):
    task = story.post()
    story.dispatch(task)
    story.checkpoint(task, "in time")
    story.lose(task)
    assert not story.checkpoint(task, "late", number=2)
    story.dispatch(task, 2)
    assert not story.checkpoint(task, "later", number=3)
    assert kept(story, task) == b'"in time"'
    assert story.checkpoint(task, "its own", attempt=2), "each attempt counts from 1"
    assert kept(story, task) == b'"its own"'


def test_it_stays_over_an_attempt_that_leaves_none_and_goes_with_the_generation(story: Story):
    task = story.post()
    story.dispatch(task)
    story.checkpoint(task, "first")
    story.lose(task)
    story.dispatch(task, 2)
    story.outcome(task, attempt=2, error=Failure("Boom", "no"))
    assert not story.checkpoint(task, "after its outcome", attempt=2)
    assert kept(story, task) == b'"first"'
    story.settle(task)
    assert story.state.dead[task][1].checkpoint is None
    story.command("redrive", task)
    assert kept(story, task) is None


def test_a_resumed_step_begins_without_one(story: Story):
    flow = story.flow({"id": "a"})
    step = f"{flow}.a.0"
    story.dispatch(step)
    story.checkpoint(step, "half")
    story.outcome(step, error=Failure("Boom", "no"))
    story.settle(step)
    story.settle(flow)
    story.command("resume", flow)
    assert kept(story, step) is None


def test_a_long_one_stays_in_the_journal_which_is_not_purged_beyond_it(story: Story):
    task = story.post()
    story.dispatch(task)
    first = story.state.seq
    story.checkpoint(task, "x" * INLINE)
    seq = story.state.seq
    found = story.state.tasks[task].checkpoint
    assert found is not None
    assert (found.seq, found.value) == (seq, None)
    story.state.tasks[task].payload_at = 0  # what else would be needed
    assert floor(story.state) == seq
    story.checkpoint(task, "short", number=2)
    assert floor(story.state) > first
    restored = load(dump(story.state))
    assert restored.tasks[task].checkpoint == story.state.tasks[task].checkpoint


def leave(leader: Leader, task: str, value: object, number: int = 1) -> int:
    dispatch = leader.dispatched[task]
    event = Checkpoint(
        task, dispatch.attempt, dispatch.secret, "h", number, msgspec.Raw(encode(value))
    )
    return int(leader.store("cb.run.acme.checkpoint.0", encode(event)))


def given(leader: Leader, task: str) -> object:
    """What the task's next attempt begins with: a value, or a sequence."""
    before = leader.dispatched[task].attempt
    leader.turn()
    leader.now += 0.1
    leader.turn()
    dispatch = leader.dispatched[task]
    assert isinstance(dispatch, Dispatch)
    assert dispatch.attempt == before + 1
    if isinstance(dispatch.restored, msgspec.Raw):
        return msgspec.json.decode(dispatch.restored)
    return dispatch.restored_at


def test_the_next_attempt_is_given_it_after_an_error_and_after_a_loss(leader: Leader):
    task = leader.post(payload=1, **RETRY)
    leader.turn()
    first = leader.dispatched[task]
    assert (first.restored, first.restored_at) == (msgspec.UNSET, None)
    leave(leader, task, {"done": 2})
    leader.finish(task, error=Failure("Boom", "no"))
    assert given(leader, task) == {"done": 2}
    seq = leave(leader, task, "x" * 5_000)
    for _ in range(10):  # nobody holds it
        leader.now += 1
        leader.beat()
        leader.engine.queue_is_ready(("shared", "plan"))
        leader.turn()
    assert leader.dispatched[task].attempt == 3
    assert leader.dispatched[task].restored_at == seq
    leader.finish(task, error=Failure("Boom", "no"))
    assert given(leader, task) == seq, "the third attempt left none of its own"
    leader.finish(task, "done")
    assert not leader.engine.state.tasks
