"""The fold: what each message of the journal means, and what means nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.subjects import Subjects
from callboard_broker.wire import EVENTS
from callboard_router.flow import INLINE
from callboard_router.fold import apply
from callboard_router.posting import KEY_WINDOW_MS, NONCE_WINDOW_MS
from callboard_router.snapshot import digest
from callboard_router.state import State
from tests.simulation.story import Story


@pytest.fixture
def story() -> Story:
    told = Story()
    told.epoch()
    return told


# -- posts


def test_a_post_is_a_waiting_task_named_after_its_sequence(story: Story):
    name = story.post(payload={"n": 1}, priority=7)
    task = story.state.tasks[name]
    assert (name, task.life.state, task.priority, task.payload) == ("2", "waiting", 7, b'{"n": 1}')


def test_an_empty_object_is_a_post_with_every_default(story: Story):
    task = story.state.tasks[story.post()]
    assert (task.payload, task.priority, task.shard) == (b"null", 5, 2)


def test_a_long_payload_stays_in_the_journal(story: Story):
    assert story.state.tasks[story.post(payload="x" * INLINE)].payload is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b'{"priority": 10}', "priority"),
        (b'{"shard": -1}', "shard"),
        (b'{"colour": 1}', "colour"),
        (b'{"payload": 1e999}', "payload"),
        (b'{"payload": ' + b"[" * 65 + b"]" * 65 + b"}", "body"),
    ],
)
def test_a_bad_post_waits_to_be_failed_with_the_field_that_must_change(
    story: Story, body: bytes, field: str
):
    story.store("cb.task.acme.plan", body)
    task = story.state.tasks[story.last]
    assert task.life.failure is not None
    assert task.life.failure.field == field
    assert not story.dispatch(task.id), "what has failed is never dispatched"
    assert story.settle(task.id)
    assert story.state.finished["failed"] == 1


def test_a_repeated_nonce_is_merged_into_the_first_post(story: Story):
    first, second = story.post(nonce="n"), story.post(nonce="n")
    assert story.state.merges == {second: (first, "acme", int(second))}
    assert second not in story.state.tasks
    assert story.merge(second, first)
    assert not story.merge(second, first), "a merge counts once"


def test_the_first_post_of_a_key_wins_even_after_it_has_ended(story: Story):
    first = story.post(key="k")
    story.run(first)
    assert story.state.merges.keys() == {story.post(key="k")}


def test_a_key_belongs_to_one_tenant(story: Story):
    story.post(key="k", nonce="n")
    story.post("blue", key="k", nonce="n")
    assert not story.state.merges


def test_a_nonce_is_forgotten_after_a_minute_and_a_key_after_a_day(story: Story):
    story.post(nonce="n", key="k")
    story.at_ms += NONCE_WINDOW_MS
    assert story.post(nonce="n") in story.state.tasks
    story.at_ms += KEY_WINDOW_MS - NONCE_WINDOW_MS - 1
    assert story.post(key="k") in story.state.merges
    story.at_ms += 1
    assert story.post(key="k") in story.state.tasks


def test_a_clock_that_steps_back_forgets_nothing_early(story: Story):
    story.post(key="k")
    story.at_ms -= 500
    assert story.post(key="k") in story.state.merges


# -- attempts


def test_a_dispatch_takes_tokens_and_the_outcome_returns_them(story: Story):
    name = story.post()
    assert story.dispatch(name)
    assert set(story.state.accounts.in_use.values()) == {1}
    assert story.outcome(name)
    assert not story.state.accounts.in_use
    assert name not in story.state.tasks


def test_a_dispatch_of_a_past_epoch_is_void(story: Story):
    name, past = story.post(), story.state.epoch
    story.epoch()
    assert not story.dispatch(name, epoch=past)
    assert not story.state.accounts.in_use


@pytest.mark.parametrize("attempt", [0, 2, 3])
def test_only_the_next_attempt_can_be_dispatched(story: Story, attempt: int):
    assert not story.dispatch(story.post(), attempt)


def test_an_attempt_is_dispatched_once(story: Story):
    name = story.post()
    assert story.dispatch(name)
    assert not story.dispatch(name)
    assert not story.dispatch(name, 2)
    assert story.state.accounts.in_use["global"] == 1


def test_the_first_outcome_wins_and_a_second_means_nothing(story: Story):
    name = story.post()
    story.dispatch(name)
    assert story.outcome(name, "first")
    assert not story.outcome(name, "second")


def test_an_outcome_needs_the_attempt_and_its_secret(story: Story):
    name = story.post()
    assert not story.outcome(name, attempt=0, secret=""), "nothing runs yet"
    story.dispatch(name)
    assert not story.outcome(name, attempt=2)
    for guess in ("guess", "", "secret-2"):
        assert not story.outcome(name, secret=guess)
    assert story.state.tasks[name].life.state == "running"


def test_the_outcome_of_a_lost_attempt_comes_too_late(story: Story):
    name = story.post()
    story.dispatch(name)
    assert story.lose(name)
    assert not story.outcome(name)
    assert story.dispatch(name, 2)
    assert not story.outcome(name, attempt=1)
    assert story.outcome(name, attempt=2)


def test_a_loss_after_the_outcome_means_nothing(story: Story):
    name = story.post()
    story.dispatch(name)
    story.outcome(name)
    assert not story.lose(name)
    assert not story.state.accounts.in_use


def test_a_loss_or_a_settlement_of_a_past_epoch_is_void(story: Story):
    name, past = story.post(), story.state.epoch
    story.dispatch(name)
    story.epoch()
    assert not story.lose(name, epoch=past)
    story.lose(name)
    assert not story.settle(name, epoch=past)


def test_a_task_that_runs_cannot_be_settled(story: Story):
    name = story.post()
    story.dispatch(name)
    assert not story.settle(name)
    assert story.state.accounts.in_use["global"] == 1


def test_an_event_under_another_tenants_subject_is_void(story: Story):
    name = story.post()
    assert not story.dispatch(name, tenant="blue")
    story.dispatch(name)
    assert not story.outcome(name, tenant="blue")


# -- what cannot be read


@pytest.mark.parametrize(
    ("subject", "data"),
    [
        ("cb.run.acme.outcome.1", b"garbage"),
        ("cb.run.acme.outcome.256", b"{}"),
        ("cb.run.acme.surprise.1", b"{}"),
        ("cb.run.acme.post.1", b"{}"),
        ("cb.task.acme.Not-A-Capability", b"{}"),
        ("cb.task.all.plan", b"{}"),
        ("elsewhere", b""),
    ],
)
def test_what_cannot_be_read_is_kept_for_quarantine(story: Story, subject: str, data: bytes):
    story.store(subject, data)
    assert list(story.state.unreadable) == [2]
    assert story.quarantine(2)
    assert not story.state.unreadable
    assert not story.quarantine(2)


def test_an_epoch_that_cannot_be_read_still_ends_the_one_before(story: Story):
    story.store("cb.run.epoch", b"garbage")
    assert (story.state.epoch, story.state.router) == (2, "")
    assert 2 in story.state.unreadable


def test_nobody_begins_an_epoch_under_a_tenants_subject(story: Story):
    story.store("cb.run.acme.epoch.7", b'{"kind": "epoch", "router": "mallory", "fold": 1}')
    assert story.state.epoch == 1


_KINDS = [name for name in EVENTS if name != "epoch"]
_PARTS = st.sampled_from(
    ["cb", "task", "flow", "run", "epoch", "acme", "all", "shared", "plan", "3", "999", "*", ""]
) | st.sampled_from(_KINDS)
_BODIES = st.one_of(
    st.binary(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["kind", "task", "payload", "steps", "id", "epoch", "from", "v"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(
    st.lists(st.tuples(st.lists(_PARTS, min_size=1, max_size=6).map(".".join), _BODIES), max_size=8)
)
def test_no_message_whatsoever_breaks_the_fold(messages: list[tuple[str, bytes]]):
    state, subjects = State(), Subjects()
    for seq, message in enumerate(messages, 1):
        apply(state, subjects, seq, seq, message)
    assert state.seq == len(messages)
    assert digest(state)


# -- the digest


def test_two_folds_of_one_journal_have_the_same_digest(story: Story):
    story.limits(**{"global": 3})
    flow = story.flow({"id": "a", "payload": {"n": {"from": "inputs", "path": "n"}}}, {"id": "b"})
    story.dispatch(f"{flow}.a.0")
    story.post(key="k")
    story.post(key="k")
    story.store("cb.run.acme.outcome.1", b"garbage")
    assert digest(story.again()) == digest(story.state)


def test_the_digest_sees_every_kind_of_change(story: Story):
    seen = {digest(story.state)}

    def is_new() -> bool:
        found = digest(story.state)
        known = found in seen
        seen.add(found)
        return not known

    name = story.post(nonce="n")
    assert is_new()
    for change in (
        lambda: story.limits(**{"global": 3}),
        lambda: story.dispatch(name),
        lambda: story.lose(name),
        lambda: story.post(nonce="n"),
        lambda: story.flow({"id": "a", "each": {"from": "inputs", "path": "x"}}),
        lambda: story.store("cb.run.acme.outcome.1", b"garbage"),
        lambda: story.outcome("nobody's"),
    ):
        change()
        assert is_new()
