"""References in a payload: how they are found, filled in, and what a wrong path says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.errors import BadInput
from callboard_broker.references import Template, fill, find, select
from callboard_broker.wire import Ref


def test_references_are_found_wherever_they_stand():
    template = {"a": {"from": "plan", "path": "files.0"}, "b": [1, {"c": {"from": "inputs"}}]}
    assert list(find(template, "payload")) == [
        ("payload.a", Ref("plan", "files.0")),
        ("payload.b[1].c", Ref("inputs", "")),
    ]


@pytest.mark.parametrize("template", [{"from": "a", "to": "b"}, {"path": "x"}, {}, "from", None])
def test_an_object_with_other_keys_is_plain_data(template: Any):
    assert list(find(template, "payload")) == []
    assert fill(template, lambda _ref: 1) == template


@pytest.mark.parametrize("template", [{"from": 1}, {"from": "a", "path": None}, {"from": "A b"}])
def test_a_bad_reference_is_refused_where_it_stands(template: Any):
    with pytest.raises(BadInput) as found:
        list(find([template], "steps[0].payload"))
    assert found.value.field == "steps[0].payload[0]"


def test_filling_replaces_references_and_keeps_everything_else():
    template = {"x": {"from": "a"}, "y": [{"from": "b", "path": "n"}, 2], "z": None}
    values = {Ref("a", ""): {"from": "never looked at"}, Ref("b", "n"): [1]}
    assert fill(template, values.__getitem__) == {
        "x": {"from": "never looked at"},
        "y": [[1], 2],
        "z": None,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [("", {"a": [{"b": 1}], "0": "zero"}), ("a.0.b", 1), ("0", "zero"), ("a", [{"b": 1}])],
)
def test_a_path_walks_objects_by_name_and_lists_by_number(path: str, value: Any):
    assert select({"a": [{"b": 1}], "0": "zero"}, path, "plan") == value


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("x", "plan has no 'x': it holds an object with a, n"),
        ("a.1", "plan.a has no '1': it holds a list of 1"),
        ("a.-1", "plan.a has no '-1': it holds a list of 1"),
        ("a.0.b", "plan.a.0 has no 'b': it holds null"),
        ("n.real", "plan.n has no 'real': it holds a int"),
        ("a..b", "plan.a has no '': it holds a list of 1"),
        ("a.¹", "plan.a has no '¹': it holds a list of 1"),
    ],
)
def test_a_path_that_is_not_there_says_what_is(path: str, says: str):
    with pytest.raises(BadInput) as found:
        select({"a": [None], "n": 1}, path, "plan")
    assert found.value.reason == says


def test_an_index_beyond_the_list_is_not_there_however_long():
    with pytest.raises(BadInput):
        select([1], "9" * 256, "plan")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.just({"from": "a"}),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3)
    ),
    max_leaves=12,
)


@given(template=JSON)
def test_a_template_that_was_taken_apart_gives_what_filling_it_gives(template: Any):
    found = Template(msgspec.json.encode(template))
    filled = found.fill(lambda ref: msgspec.json.encode([ref.source]))
    assert msgspec.json.decode(filled) == fill(template, lambda ref: [ref.source])
    assert found.refs == [ref for _, ref in find(template, "payload")]
