"""When a condition holds, and that nothing unclear is ever silently false."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.conditions import check_condition, holds
from callboard_broker.errors import BadInput
from callboard_broker.references import select
from callboard_broker.wire import Ref

VALUES = {
    "n": 3,
    "text": "build-7",
    "yes": True,
    "none": None,
    "list": [1, {"a": 1}],
    "deep": {"x": 2},
}


def value_of(ref: Ref) -> Any:
    return select(VALUES, ref.path, ref.source)


def asked(condition: Any) -> bool:
    check_condition(condition, "when")
    return holds(condition, value_of)


def ref(path: str) -> dict[str, str]:
    return {"from": "plan", "path": path}


@pytest.mark.parametrize(
    ("path", "test", "wanted", "expected"),
    [
        ("n", "equals", 3, True),
        ("n", "equals", 3.0, True),
        ("n", "equals", "3", False),
        ("yes", "equals", 1, False),
        ("list", "equals", [1, {"a": 1}], True),
        ("list", "equals", [True, {"a": 1}], False),
        ("deep", "equals", {"x": 2}, True),
        ("none", "equals", None, True),
        ("n", "not_equals", 4, True),
        ("n", "above", 2, True),
        ("n", "above", 3, False),
        ("n", "at_least", 3, True),
        ("n", "below", 3, False),
        ("n", "at_most", 3, True),
        ("text", "below", "c", True),
        ("n", "in", [1, 2, 3], True),
        ("yes", "in", [1, "yes"], False),
        ("n", "exists", True, True),
        ("none", "exists", True, False),
        ("absent", "exists", True, False),
        ("absent", "exists", False, True),
        ("text", "matches", r"build-\d+", True),
        ("text", "matches", "build", False),
    ],
)
def test_a_value_is_compared_as_json(path: str, test: str, wanted: Any, *, expected: bool):
    assert asked({"value": ref(path), test: wanted}) is expected


def test_a_value_alone_must_be_true_or_false():
    assert asked(ref("yes"))
    assert asked({"value": ref("yes")})
    with pytest.raises(BadInput) as caught:
        asked(ref("n"))
    assert "plan.n is a int; it must be true or false" in caught.value.reason


def test_a_value_may_be_compared_with_another_one():
    assert asked({"value": ref("n"), "above": ref("deep.x")})
    assert not asked({"value": ref("n"), "equals": ref("text")})
    assert asked({"value": {"from": "plan", "path": "list.0"}, "in": ref("list")})
    with pytest.raises(BadInput):
        asked({"value": ref("n"), "in": ref("text")})


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ({"value": ref("absent"), "equals": 1}, "has no 'absent'"),
        ({"value": ref("text"), "above": 1}, "plan.text is a str; it must be a number"),
        ({"value": ref("n"), "above": "a"}, "plan.n is a int; it must be a text"),
        ({"value": ref("yes"), "above": 0}, "it must be a number"),
        ({"value": ref("n"), "matches": "a"}, "it must be a text"),
        ({"value": ref("none"), "above": 0}, "plan.none is null"),
    ],
)
def test_what_cannot_be_compared_is_an_error_and_not_false(condition: Any, says: str):
    with pytest.raises(BadInput) as caught:
        asked(condition)
    assert says in caught.value.reason


def test_a_group_stops_at_the_part_that_decides_it():
    wrong = {"value": ref("absent"), "above": 1}
    missing = {"value": ref("absent"), "exists": True}
    assert not asked({"all": [missing, wrong]})
    assert asked({"any": [{"not": missing}, wrong]})
    with pytest.raises(BadInput):
        asked({"all": [{"not": missing}, wrong]})


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        ("yes", "when"),
        ([], "when"),
        ({}, "when.value"),
        ({"all": []}, "when.all"),
        ({"all": {"value": ref("n")}}, "when.all"),
        ({"all": [ref("yes")], "any": [ref("yes")]}, "when"),
        ({"any": [ref("yes"), 3]}, "when.any[1]"),
        ({"not": [ref("yes")]}, "when.not"),
        ({"value": 3, "equals": 3}, "when.value"),
        ({"value": {"from": "plan", "to": 1}, "equals": 3}, "when.value"),
        ({"value": ref("n"), "equals": 1, "above": 0}, "when"),
        ({"value": ref("n"), "like": 1}, "when"),
        ({"value": ref("n"), "above": None}, "when.above"),
        ({"value": ref("n"), "above": True}, "when.above"),
        ({"value": ref("n"), "in": "abc"}, "when.in"),
        ({"value": ref("n"), "exists": 1}, "when.exists"),
        ({"value": ref("n"), "matches": "("}, "when.matches"),
        ({"value": ref("n"), "matches": "a" * 257}, "when.matches"),
        ({"value": ref("n"), "matches": "(a+)+b"}, "when.matches"),
        ({"value": ref("n"), "matches": "(a|a)*b"}, "when.matches"),
        ({"value": ref("n"), "matches": r"(a)\1"}, "when.matches"),
        ({"value": {"from": "Plan A"}, "equals": 1}, "when.value"),
        ({"not": {"value": {"from": 3}}}, "when.not.value"),
        ({"from": "plan", "equals": 3}, "when"),
    ],
)
def test_what_is_no_condition_is_refused_by_the_part_that_must_change(condition: Any, field: str):
    with pytest.raises(BadInput) as caught:
        check_condition(condition, "when")
    assert caught.value.field == field


def test_the_references_of_a_condition_are_found_with_their_places():
    condition = {"all": [ref("yes"), {"not": {"value": ref("n"), "above": {"from": "other"}}}]}
    assert check_condition(condition, "when") == [
        ("when.all[0]", Ref("plan", "yes")),
        ("when.all[1].not.value", Ref("plan", "n")),
        ("when.all[1].not.above", Ref("other", "")),
    ]


@given(
    condition=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just({"from": "plan"}),
        lambda part: (
            st.lists(part, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "all",
                        "any",
                        "not",
                        "value",
                        "equals",
                        "above",
                        "in",
                        "exists",
                        "from",
                        "path",
                        "matches",
                    ]
                ),
                part,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_is_accepted_can_be_asked(condition: Any):
    try:
        check_condition(condition, "when")
    except BadInput:
        return
    with contextlib.suppress(BadInput):
        assert holds(condition, lambda _: 3) in (True, False)


@pytest.mark.parametrize(
    "pattern",
    [
        *("((a+))+c", "(a?){60}a{60}c", "a*a*a*a*a*a*a*a*c", "(?:(?:a|aa))+c", "((a|b)?)*c"),
        *("(?x)(a +) +c", "(?i:((a*))*)c", "(a{0,9}b?){9}c", "a+?a+?a+?a+?a+?c", "(?#) )a*c"),
        *(
            "[]a]*[^]b]*[a\\]]*a*a*c",
            "(((a))*)*\\Z",
            "a{1,}a{1,}a{,999}a{2,3}c",
            "(?=(a+)+)c",
            "(a?){24}[bc]",
        ),
    ],
)
@pytest.mark.parametrize("length", [20, 60, 4096])
def test_no_pattern_keeps_a_router_busy_for_long(pattern: str, length: int):
    condition = {"value": {"from": "a"}, "matches": pattern}
    begun = time.process_time()
    with contextlib.suppress(BadInput):
        check_condition(condition, "when")
    with contextlib.suppress(BadInput):
        holds(condition, lambda _: "a" * length)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("release-[0-9]+", "release-2026"),
        ("[a-z.]+@[a-z]+\\.(org|com)", "ada@example.org"),
        ("v(\\d+)\\.(\\d+)(-rc)?", "v1.24-rc"),
        ("(?i)yes|ok", "OK"),
        (".*error.*", "x" * 2000 + "error" + "y" * 2000),
        ("x{3,5}", "xxxx"),
        ("a{b", "a{b"),
    ],
)
def test_what_people_write_is_still_matched(pattern: str, text: str):
    assert holds({"value": {"from": "a"}, "matches": pattern}, lambda _: text)
