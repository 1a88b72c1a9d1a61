"""What a workflow's graph is, and how one that cannot run is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.graph import Graph, chart
from callboard_broker.wire import FlowRun, Ref, Step, decode_flow_run


def graph(*steps: dict[str, Any], max_steps: int = 1000, **body: Any) -> Graph:
    found = [{"capability": "plan"} | step for step in steps]
    document = {"name": "w", "steps": found} | body
    return chart(decode_flow_run(json.dumps(document).encode()), max_steps=max_steps)


def refused(*steps: dict[str, Any], **body: Any) -> BadInput:
    with pytest.raises(BadInput) as found:
        graph(*steps, **body)
    return found.value


def test_a_step_needs_what_its_payload_its_list_and_after_name():
    found = graph(
        {"id": "a"},
        {"id": "b"},
        {"id": "c"},
        {
            "id": "d",
            "payload": {"deep": [{"x": {"from": "a", "path": "n"}}, {"from": "inputs"}]},
            "each": {"from": "b", "path": "list"},
            "after": ["c"],
        },
    )
    assert found.nodes["d"].needs == {"a", "b", "c"}
    assert found.nodes["a"].feeds == ("d",)
    assert found.sinks == ("d",)


def test_the_nodes_stand_in_an_order_in_which_needs_come_first():
    found = graph({"id": "c", "after": ["b"]}, {"id": "b", "after": ["a"]}, {"id": "a"})
    assert list(found.nodes) == ["a", "b", "c"]


def test_a_fan_out_over_a_whole_fan_out_follows_it_item_by_item():
    found = graph(
        {"id": "a", "each": {"from": "inputs", "path": "items"}},
        {"id": "b", "each": {"from": "a"}, "payload": {"from": "item"}},
    )
    assert (found.nodes["b"].follows, found.nodes["b"].needs) == ("a", frozenset())
    assert found.nodes["a"].feeds == ("b",)


@pytest.mark.parametrize(
    "steps",
    [
        ({"id": "a"}, {"id": "b", "each": {"from": "a"}}),
        ({"id": "a", "each": {"from": "inputs"}}, {"id": "b", "each": {"from": "a", "path": "0"}}),
    ],
)
def test_a_fan_out_over_anything_else_waits_for_all_of_it(steps: tuple[dict[str, Any], ...]):
    found = graph(*steps)
    assert (found.nodes["b"].follows, found.nodes["b"].needs) == (None, {"a"})


def test_a_step_that_follows_a_list_may_also_need_all_of_it():
    found = graph(
        {"id": "a", "each": {"from": "inputs"}},
        {"id": "b", "each": {"from": "a"}, "payload": {"all": {"from": "a"}}},
    )
    assert (found.nodes["b"].follows, found.nodes["b"].needs) == ("a", {"a"})


@pytest.mark.parametrize(
    ("steps", "field", "says"),
    [
        ([{"id": "a"}, {"id": "a"}], "steps[1].id", "'a' is used twice"),
        ([{"id": "item"}], "steps[0].id", "reserved"),
        ([{"id": "inputs"}], "steps[0].id", "reserved"),
        ([{"id": "a", "capability": "Review"}], "steps[0].capability", "'Review'"),
        ([{"id": "a", "after": ["b"]}], "steps[0].after[0]", "no step 'b'; the steps are a"),
        ([{"id": "a", "payload": [{"from": "b"}]}], "steps[0].payload[0]", "no step 'b'"),
        ([{"id": "a", "payload": {"x": {"from": "item"}}}], "steps[0].payload.x", "`each`"),
        ([{"id": "a", "payload": {"from": 7}}], "steps[0].payload", "not a reference"),
        ([{"id": "a", "each": {"from": "b"}}], "steps[0].each", "no step 'b'"),
        ([{"id": "a", "each": {"from": "item"}}], "steps[0].each", "cannot be the list"),
        ([{"id": "a", "after": ["a"]}], "steps", "a cycle: a -> a"),
    ],
)
def test_what_cannot_run_is_refused_with_the_field_that_must_change(
    steps: list[dict[str, Any]], field: str, says: str
):
    error = refused(*steps)
    assert error.field == field
    assert says in error.reason


def test_a_cycle_is_spelled_out_in_the_order_in_which_it_would_run():
    error = refused(
        {"id": "d"},
        {"id": "a", "after": ["c", "d"]},
        {"id": "b", "after": ["a"]},
        {"id": "c", "after": ["b"]},
        {"id": "e", "after": ["c"]},
    )
    assert error.reason == "a cycle: a -> b -> c -> a"


def test_a_step_outside_the_cycle_that_waits_for_it_is_not_named():
    error = refused(
        {"id": "a", "after": ["b"]}, {"id": "b", "after": ["c"]}, {"id": "c", "after": ["b"]}
    )
    assert error.reason in ("a cycle: b -> c -> b", "a cycle: c -> b -> c")


def test_the_output_may_refer_to_steps_and_inputs_only():
    found = graph({"id": "a"}, output={"x": {"from": "a"}, "y": {"from": "inputs"}})
    assert found.sinks == ("a",)
    assert refused({"id": "a"}, output={"x": {"from": "b"}}).field == "output.x"
    assert refused({"id": "a"}, output={"x": {"from": "item"}}).field == "output.x"


def test_too_many_steps_are_refused_before_anything_is_worked_out():
    with pytest.raises(TooLarge) as found:
        graph({"id": "a"}, {"id": "b"}, max_steps=1)
    assert found.value.field == "steps"


def test_a_thousand_steps_in_a_row_are_charted():
    steps = [{"id": f"s{n}", "after": [f"s{n - 1}"] if n else []} for n in range(1000)]
    assert list(graph(*steps).nodes)[-1] == "s999"


def test_fan_outs_that_follow_each_other_without_end_are_refused_by_name():
    steps = [Step(id="s0", capability="c", each=Ref("inputs", "items"))]
    steps += [
        Step(id=f"s{number}", capability="c", each=Ref(f"s{number - 1}"))
        for number in range(1, 200)
    ]
    with pytest.raises(TooLarge) as caught:
        chart(FlowRun(name="chain", steps=steps))
    assert caught.value.field.endswith(".each")
