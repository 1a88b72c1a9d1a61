"""Subjects: what is built is parsed back, and what nobody may use is malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.errors import BadInput
from callboard_broker.subjects import (
    Address,
    Subjects,
    check_capability,
    check_tenant,
    check_token,
)

SUBJECTS = Subjects()
NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,20}\Z").filter(
    lambda name: name not in ("shared", "all", "refused")
)
CAPABILITIES = st.lists(NAMES, min_size=1, max_size=4).map(".".join)


@given(NAMES, CAPABILITIES)
def test_a_post_is_parsed_back(tenant: str, capability: str):
    assert SUBJECTS.parse(SUBJECTS.task(tenant, capability)) == Address("post", tenant, capability)


@given(NAMES, NAMES, CAPABILITIES)
def test_a_dispatch_is_parsed_back(tenant: str, pool: str, capability: str):
    found = SUBJECTS.parse(SUBJECTS.dispatch(tenant, pool, capability))
    assert found == Address("dispatch", tenant, capability, pool)


@given(NAMES, st.sampled_from(["outcome", "lost", "settled"]), st.integers(0, 255))
def test_an_event_is_parsed_back(tenant: str, kind: str, shard: int):
    assert SUBJECTS.parse(SUBJECTS.run(tenant, kind, shard)) == Address(kind, tenant, shard=shard)


def test_the_epoch_and_a_flow_are_parsed_back():
    assert SUBJECTS.parse(SUBJECTS.epoch) == Address("epoch")
    assert SUBJECTS.parse(SUBJECTS.flow("acme", "run")) == Address("flow", "acme", "run")


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "cb",
        "cb.task.acme",
        "cb.task..plan",
        "cb.task.acme.plan.",
        "cb.task.acme.*",
        "cb.task.acme.>",
        "cb.task.Acme.plan",
        "cb.task.acme.pl\x00an",
        "cb.task.acmé.plan",
        "cb.task.shared.plan",
        "cb.task.all.plan",
        "cb.task.refused.plan",
        "cb.flow.acme",
        "cb.flow.acme.run.more",
        "cb.run.acme.outcome",
        "cb.run.acme.outcome.256",
        "cb.run.acme.outcome.-1",
        "cb.run.acme.outcome.³",
        "cb.run.acme.dispatch.shared",
        "cb.run.epoch.more",
        "other.task.acme.plan",
        "cb.task.acme." + "a" * 129,
        "cb.task.acme." + ".".join(["a"] * 200),
        *(f"cb.run.acme.{kind}.7" for kind in ("post", "flow", "epoch", "dispatch", "malformed")),
    ],
)
def test_what_nobody_may_use_is_malformed_with_a_reason(subject: str):
    found = SUBJECTS.parse(subject)
    assert found.kind == "malformed"
    assert found.reason


@given(st.text(max_size=60))
def test_every_text_has_an_address(subject: str):
    assert SUBJECTS.parse(subject).kind
    assert SUBJECTS.parse("cb." + subject).kind


@pytest.mark.parametrize(
    "value", ["", "A", "a b", "a.b", "a*", ">", "-a", "_a", "a" * 64, "a\n", "é", "a\x7f", None, 3]
)
def test_a_name_from_outside_is_checked_before_it_becomes_a_token(value: object):
    with pytest.raises(BadInput) as found:
        check_token(value, "tenant")  # type: ignore[arg-type]  # what a caller may really pass
    assert found.value.field == "tenant"


@pytest.mark.parametrize("value", ["shared", "all", "refused"])
def test_a_reserved_name_is_no_tenant(value: str):
    with pytest.raises(BadInput, match="reserved"):
        check_tenant(value)


@pytest.mark.parametrize("value", ["", ".", "a..b", "a.", "a.B", "a" * 129, None])
def test_a_capability_is_a_dotted_name(value: object):
    with pytest.raises(BadInput) as found:
        check_capability(value)  # type: ignore[arg-type]  # what a caller may really pass
    assert found.value.field == "capability"


@pytest.mark.parametrize("value", ["plan", "review.python", "0", "a-b_c.d"])
def test_what_is_accepted_is_returned_as_it_is(value: str):
    assert check_capability(value) == value


def test_a_subject_that_would_be_too_long_is_refused_when_it_is_built():
    with pytest.raises(BadInput) as found:
        Subjects("p" * 63).dispatch("t" * 63, "q" * 63, "c." * 40 + "c")
    assert found.value.field == "subject"


def test_a_filter_of_a_queue_is_literal_but_for_the_tenant():
    assert SUBJECTS.dispatch_filter("shared", "a.b") == "cb.run.*.dispatch.shared.a.b"
    with pytest.raises(BadInput):
        SUBJECTS.dispatch_filter("*", "a.b")


def test_two_boards_do_not_read_each_other():
    assert Subjects("other").parse("cb.task.acme.plan").kind == "malformed"
    with pytest.raises(BadInput):
        Subjects("two.tokens")
