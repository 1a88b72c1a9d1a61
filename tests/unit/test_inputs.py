"""A path into a workflow's inputs that leads nowhere is refused where the workflow is posted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callboard_broker.errors import BadInput
from callboard_broker.graph import chart
from callboard_broker.inputs import check_inputs
from callboard_broker.wire import decode_flow_run

_GONE = {"from": "inputs", "path": "gone"}
_INPUTS = {"root": "src", "files": ["a", "b"]}


def check(*steps: dict[str, Any], inputs: Any = _INPUTS, **body: Any) -> None:
    found = [{"capability": "plan"} | step for step in steps]
    document = {"name": "w", "steps": found, "inputs": inputs} | body
    run = decode_flow_run(json.dumps(document).encode())
    check_inputs(run, chart(run))


@pytest.mark.parametrize(
    ("steps", "field", "says"),
    [
        ([{"id": "a"}, {"id": "b", "payload": {"x": _GONE}}], "steps[1].payload.x", "'gone'"),
        ([{"id": "a", "payload": [1, _GONE]}], "steps[0].payload[1]", "root"),
        ([{"id": "b", "after": ["a"], "payload": _GONE}, {"id": "a"}], "steps[0].payload", ""),
        ([{"id": "a", "each": _GONE}], "steps[0].each", "'gone'"),
        ([{"id": "a", "each": {"from": "inputs", "path": "root"}}], "steps[0].each", "a list"),
        ([{"id": "a", "each": {"from": "inputs"}}], "steps[0].each", "a list"),
    ],
)
def test_an_input_that_is_not_there_is_named_with_its_place(
    steps: list[dict[str, Any]], field: str, says: str
):
    with pytest.raises(BadInput) as refused:
        check(*steps)
    assert refused.value.field == field
    assert says in refused.value.reason


def test_an_output_that_cannot_be_made_of_the_inputs_is_refused():
    with pytest.raises(BadInput) as refused:
        check({"id": "a"}, output={"all": {"from": "a"}, "root": _GONE})
    assert refused.value.field == "output.root"


def test_what_is_there_may_be_used():
    check(
        {"id": "a", "payload": {"root": {"from": "inputs", "path": "root"}}},
        {"id": "b", "each": {"from": "inputs", "path": "files"}, "payload": {"from": "item"}},
        output={"first": {"from": "inputs", "path": "files.0"}},
    )


def test_what_may_never_run_or_may_fail_is_not_judged():
    asked = {"value": {"from": "inputs", "path": "gone"}, "exists": True}
    check(
        {"id": "a", "when": asked, "payload": _GONE}, {"id": "b", "payload": {"a": {"from": "a"}}}
    )
    check({"id": "a", "when": asked}, {"id": "b", "after": ["a"], "payload": _GONE})
    check({"id": "a", "payload": _GONE}, {"id": "b", "join": "best_effort", "after": ["a"]})


def test_inputs_that_nothing_names_may_be_anything():
    check({"id": "a", "payload": {"all": {"from": "inputs"}}}, inputs={})
