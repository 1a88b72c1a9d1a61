"""The tracker's words for what the board says, and which pending rows become which workflows."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.errors import BadInput
from callboard_broker.wire import Entered, FlowRun, Post, Step
from callboard_config import SettingsError, load_settings
from callboard_integrations.cerebral.describing import (
    describe_element,
    describe_flow,
    describe_post,
)
from callboard_integrations.cerebral.names import Names, source_of, step_of
from callboard_integrations.cerebral.pending import Decided, PendingRow, decide, read_row
from callboard_integrations.cerebral.standing import importance, priority

_MOST = 500_000


def row(name: str, *before: str, **more: Any) -> PendingRow:
    return PendingRow(id=name, title=name, capability="work", payload=b"{}", before=before, **more)


def posted(decided: Decided) -> list[set[str]]:
    return sorted(({one.id for one in group.rows} for group in decided.groups), key=sorted)


def test_rows_that_depend_on_each_other_are_one_workflow_and_others_one_each():
    rows = [row("c", "b"), row("b", "a"), row("a"), row("x")]
    decided = decide(rows, {}, most_bytes=_MOST)
    assert posted(decided) == [{"a", "b", "c"}, {"x"}]
    run = decided.groups[0].run if len(decided.groups[0].rows) == 3 else decided.groups[1].run
    assert {step.id: step.after for step in run.steps} == {
        step_of("a"): [],
        step_of("b"): [step_of("a")],
        step_of("c"): [step_of("b")],
    }
    assert run.key == "cerebral:a"


def test_a_circle_is_named_and_stops_nobody_else():
    rows = [row("a", "c"), row("b", "a"), row("c", "b"), row("after", "a"), row("x"), row("s", "s")]
    states = dict.fromkeys(("a", "b", "c", "s"), "pending")
    decided = decide(rows, states, most_bytes=_MOST)
    assert posted(decided) == [{"x"}]
    assert set(decided.refused) == {"a", "b", "c", "s"}
    assert "circle" in decided.refused["a"]
    assert "a -> c" in decided.refused["a"]
    assert decided.refused["s"].endswith("s -> s")
    assert decided.waiting == {"after": "for a, which is pending"}


@pytest.mark.parametrize(
    ("state", "becomes"),
    [
        ("completed", "posted"),
        ("pending", "waiting"),
        ("in_progress", "waiting"),
        ("blocked", "waiting"),
        ("cancelled", "refused"),
        (None, "refused"),
    ],
)
def test_a_row_waits_for_others_that_are_not_completed(state: str | None, becomes: str):
    states = {} if state is None else {"before": state}
    decided = decide([row("a", "before"), row("b", "a")], states, most_bytes=_MOST)
    assert bool(decided.groups) == (becomes == "posted")
    assert ("a" in decided.waiting) == (becomes == "waiting")
    assert ("a" in decided.refused) == (becomes == "refused")


def test_a_claim_that_was_broken_off_is_posted_as_it_was_claimed():
    rows = [row("a", claim="cerebral:a"), row("b", "a", claim="cerebral:a"), row("c", "b")]
    decided = decide(rows, {"b": "pending"}, most_bytes=_MOST)
    (group,) = decided.groups
    assert (group.claim, group.is_new) == ("cerebral:a", False)
    assert {one.id for one in group.rows} == {"a", "b"}
    assert decided.waiting == {"c": "for b, which is pending"}


def test_rows_beyond_the_bounds_are_refused_by_name():
    chain = [row("r0"), *(row(f"r{n}", f"r{n - 1}") for n in range(1, 501))]
    assert "501 rows" in decide(chain, {}, most_bytes=_MOST).refused["r7"]
    fat = PendingRow(id="fat", title="x", capability="work", payload=b'"' + b"x" * 999 + b'"')
    decided = decide([fat, row("thin")], {}, most_bytes=900)
    assert set(decided.refused) == {"fat"}
    assert posted(decided) == [{"thin"}]


@given(st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(0, 11))), max_size=10))
def test_every_row_is_posted_once_or_waits_or_is_refused_and_nothing_runs_before_its_time(
    drawn: list[tuple[int, set[int]]],
):
    rows = [row(str(n), *map(str, sorted(before))) for n, before in dict(drawn).items()]
    states = {str(n): "pending" for n, _ in drawn}
    decided = decide(rows, states | {"10": "completed"}, most_bytes=_MOST)
    gone = [one.id for group in decided.groups for one in group.rows]
    assert sorted([*gone, *decided.waiting, *decided.refused]) == sorted(r.id for r in rows)
    for group in decided.groups:
        inside = {one.id for one in group.rows}
        for one in group.rows:
            assert set(one.before) <= inside | {"10"}


def test_what_a_row_lacks_is_named():
    own = str(uuid.uuid4())
    good = {"id": own, "title": "t", "metadata": {"capability": "review.python"}}
    assert read_row(good, None).capability == "review.python"
    assert read_row({**good, "metadata": None}, "work").capability == "work"
    for columns, said in (
        ({"metadata": {}}, "metadata.capability"),
        ({"metadata": {"capability": "no such*"}}, "capability"),
        ({"metadata": {"capability": 7}}, "metadata.capability"),
        ({"metadata": [1]}, "metadata"),
        ({"dependencies": "a"}, "dependencies"),
        ({"dependencies": ["x"] * 101}, "dependencies"),
        ({"id": "Ä"}, "id"),
        ({"too_large": 300_000}, "300000 bytes"),
    ):
        with pytest.raises(BadInput, match=said.replace("*", "")):
            read_row({**good, **columns}, None)


def test_a_payload_of_a_row_is_taken_as_it_is_even_if_it_looks_like_a_reference():
    payload = {"from": "elsewhere", "n": 1.5}
    found = read_row({"id": "a", "metadata": {"capability": "work", "payload": payload}}, None)
    (group,) = decide([found], {}, most_bytes=_MOST).groups
    assert msgspec.json.decode(group.run.inputs) == {"a": payload}
    assert msgspec.json.decode(group.run.steps[0].payload) == {"from": "inputs", "path": "a"}


def test_names_are_the_same_for_all_and_another_journal_has_others():
    names = Names(tenants={"acme": "0a0a0a0a-0000-4000-8000-00000000000a"})
    assert names.tenant("acme") == "0a0a0a0a-0000-4000-8000-00000000000a"
    assert uuid.UUID(names.tenant("globex")).version == 5
    other = names.tenant("0a0a0a0a-0000-4000-8000-00000000000a")
    assert other != names.tenant("acme"), "nobody gets at a tenant's rows by its UUID as a name"
    assert names.tenant("0b0b0b0b-0000-4000-8000-00000000000b").startswith("0b0b0b0b")
    assert names.row("J 1", "7") == names.row("J 1", "7") != names.row("J 2", "7")
    assert source_of(step_of("a-b")) == "a-b"
    assert source_of("cerebral-sync") is None


def test_priorities_go_there_and_back():
    words = [priority(number) for number in range(10)]
    assert words == ["low"] * 3 + ["medium"] * 3 + ["high"] * 2 + ["critical"] * 2
    for word in ("low", "medium", "high", "critical"):
        assert priority(importance(word)) == word
    assert importance(None) == 5


def test_a_story_is_told_from_the_inputs_of_an_element_and_handed_to_its_steps():
    inputs = b'{"bmad_workflow_id":"greenfield","item":{"id":"1.2","title":"Log in"}}'
    element = describe_element(Entered("5.stories.0", 1, msgspec.Raw(inputs)))
    assert (element.title, element.story, element.workflow) == ("Log in", "1.2", "greenfield")
    assert element.step("build").story == "1.2"
    run = FlowRun("nightly", [Step(id="a", capability="x", payload=msgspec.Raw(b'{"title":"A"}'))])
    assert describe_flow(run).title == "nightly"
    assert describe_flow(run).step("a").title == "A"


@pytest.mark.parametrize(
    "payload", [b"null", b"7", b"[]", b"{", b'{"title":7}', b'{"title":"\\ud800"}', b"[" * 9999]
)
def test_a_payload_that_says_nothing_is_no_problem(payload: bytes):
    assert describe_post(Post(payload=msgspec.Raw(payload))).title in ("", "?")


def test_two_tenants_with_one_uuid_are_refused():
    one = "0a0a0a0a-0000-4000-8000-00000000000a"
    with pytest.raises(SettingsError, match="see each other's rows"):
        load_settings(overrides={"cerebral.tenants": {"a": one, "b": one.upper()}})
    for key, value in (("tenants", {"a": "7"}), ("tasks", "x; drop table y"), ("tasks", "A")):
        with pytest.raises(SettingsError):
            load_settings(overrides={f"cerebral.{key}": value})
