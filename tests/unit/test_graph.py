"""What a workflow's graph is, and how one that cannot run is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.graph import MAX_NESTING, Graph, chart, downstream, upstream
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
        ([{"id": "undo"}], "steps[0].id", "reserved"),
        ([{"id": "a", "capability": ""}], "steps[0].capability", "or a gate, or a workflow"),
        ([{"id": "a", "gate": {}}], "steps[0].capability", "a gate is not work"),
        (
            [{"id": "a", "capability": "", "gate": {}, "flow": {"steps": [{"id": "x"}]}}],
            "steps[0].flow",
            "make two steps of it",
        ),
        (
            [{"id": "a", "flow": {"steps": [{"id": "x", "capability": "c"}]}}],
            "steps[0].capability",
            "a step with a workflow is not work",
        ),
        (
            [{"id": "a", "capability": "", "gate": {}, "budgets": ["x"]}],
            "steps[0].budgets",
            "it has no budgets",
        ),
        (
            [{"id": "a", "capability": "", "gate": {"kind": "signal"}}],
            "steps[0].gate.signal",
            "names it",
        ),
        (
            [{"id": "a", "capability": "", "gate": {"signal": "x"}}],
            "steps[0].gate.signal",
            "no other does",
        ),
        ([{"id": "a", "join": "any"}], "steps[0].join", "'any' of nothing"),
        ([{"id": "a"}, {"id": "b", "after": ["a"], "join": 2}], "steps[1].join", "only 1 steps"),
        ([{"id": "a", "when": {"value": 3}}], "steps[0].when.value", "a reference"),
        ([{"id": "a", "when": {"from": "b"}}], "steps[0].when", "no step 'b'"),
        ([{"id": "a", "when": {"from": "item"}}], "steps[0].when", "`each`"),
        (
            [{"id": "a", "compensate": {"capability": "Bad"}}],
            "steps[0].compensate.capability",
            "'Bad'",
        ),
        (
            [{"id": "a", "compensate": {"capability": "c", "payload": {"from": "b"}}}],
            "steps[0].compensate.payload",
            "no step 'b'",
        ),
        (
            [{"id": "a", "capability": "", "flow": {"steps": [{"id": "x"}]}}],
            "steps[0].flow.steps[0].capability",
            "or a gate, or a workflow",
        ),
        (
            [
                {
                    "id": "a",
                    "capability": "",
                    "flow": {"steps": [{"id": "x", "capability": "c", "after": ["x"]}]},
                }
            ],
            "steps[0].flow.steps",
            "a cycle: x -> x",
        ),
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


def test_a_condition_makes_its_steps_come_first():
    found = graph({"id": "a"}, {"id": "b", "when": {"value": {"from": "a"}, "equals": 1}})
    assert found.nodes["b"].needs == {"a"}


def test_the_list_of_a_fan_out_must_be_there_whatever_the_join_says():
    found = graph(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "each": {"from": "a", "path": "list"}, "after": ["b"], "join": "best_effort"},
    )
    assert (found.nodes["c"].needs, found.nodes["c"].strict) == ({"a", "b"}, {"a"})
    assert [name for name, node in found.nodes.items() if node.tolerated] == ["b"]


def test_a_step_is_tolerated_if_all_that_depends_on_it_tolerates_it():
    found = graph(
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "after": ["a", "b"], "join": "any"},
        {"id": "d", "after": ["b"]},
    )
    assert [name for name, node in found.nodes.items() if node.tolerated] == ["a"]


def test_how_many_elements_a_fan_out_has_is_not_known_at_the_post():
    found = graph({"id": "a", "each": {"from": "inputs"}}, {"id": "b", "after": ["a"], "join": 7})
    assert found.nodes["b"].chooses


def test_what_comes_before_and_after_a_step_is_found_however_far():
    found = graph(
        {"id": "a"}, {"id": "b", "after": ["a"]}, {"id": "c", "after": ["b"]}, {"id": "d"}
    )
    assert downstream(found, ["b"]) == {"b", "c"}
    assert upstream(found, ["b"]) == {"a", "b"}


def nested(levels: int) -> dict[str, Any]:
    step: dict[str, Any] = {"id": "x", "capability": "c"}
    for _ in range(levels):
        step = {"id": "x", "capability": "", "flow": {"steps": [step]}}
    return step


def test_workflows_inside_workflows_are_charted_down_to_a_bound():
    found = graph(nested(MAX_NESTING)).nodes["x"]
    for _ in range(MAX_NESTING):
        assert found.graph is not None
        found = found.graph.nodes["x"]
    assert found.graph is None
    with pytest.raises(TooLarge) as caught:
        graph(nested(MAX_NESTING + 1))
    assert caught.value.field == "steps"


def test_the_steps_of_all_levels_are_counted_together():
    inner = {"id": "a", "capability": "", "flow": {"steps": [{"id": "x", "capability": "c"}] * 9}}
    with pytest.raises(TooLarge) as caught:
        graph(inner, max_steps=9)
    assert "10 steps" in caught.value.reason


def test_a_thousand_steps_that_each_name_many_are_charted_quickly():
    steps = [
        {"id": f"s{n}", "after": [f"s{back}" for back in range(max(0, n - 50), n)]}
        for n in range(1000)
    ]
    assert len(graph(*steps).nodes) == 1000
