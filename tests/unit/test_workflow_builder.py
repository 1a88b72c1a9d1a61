"""What the builder and a YAML file make of a workflow, and how they refuse what cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard_broker.errors import BadInput
from callboard_broker.wire import FlowRun, Gate, Ref, Retry, Step, Timeouts, Undo
from callboard_broker.workflow import Workflow


def steps(run: FlowRun) -> dict[str, Step]:
    return {step.id: step for step in run.steps}


def decoded(raw: Any) -> Any:
    return msgspec.json.decode(raw)


def test_every_option_of_a_step_reaches_the_wire():
    flow = Workflow("w", inputs={"files": [1]}, timeout=60, at_once=8)
    plan = flow.step("plan", "docs.plan")
    other = flow.step("other", "docs.plan")
    flow.step(
        "page",
        "docs.write",
        {"file": flow.item},
        each=flow.inputs["files"],
        after=[plan, other],
        join="any",
        when=plan["ok"].equals(True) & ~other["late"],
        at_once=4,
        retry={"attempts": 3},
        timeouts=Timeouts(total=9),
        needs={"labels": {"zone": "a"}},
        budgets=["provider:openai"],
        units={"tokens": 2000},
        compensate=("docs.drop", {"page": flow.item}),
        priority=7,
        timeout=30,
    )
    run = flow.spec()
    page = steps(run)["page"]
    assert (run.timeout, run.at_once) == (60, 8)
    assert (page.join, page.at_once, page.priority, page.timeout) == ("any", 4, 7, 30)
    assert (page.retry, page.timeouts) == (Retry(attempts=3), Timeouts(total=9))
    assert page.needs is not None
    assert page.needs.labels == {"zone": "a"}
    assert (page.budgets, page.units) == (["provider:openai"], {"tokens": 2000})
    assert decoded(page.when) == {
        "all": [
            {"value": {"from": "plan", "path": "ok"}, "equals": True},
            {"not": {"from": "other", "path": "late"}},
        ]
    }
    assert page.compensate is not None
    assert page.compensate.capability == "docs.drop"
    assert decoded(page.compensate.payload) == {"page": {"from": "item"}}


def test_gates_and_signals_are_steps_to_be_named_by_others():
    flow = Workflow("w")
    asked = flow.gate("ask", prompt="Ship it?")
    paid = flow.signal("paid")
    flow.step("ship", "ship", {"who": asked["by"], "sum": paid["sum"]}, when=asked["approved"])
    run = steps(flow.spec())
    assert run["ask"].gate == Gate(prompt="Ship it?")
    assert run["paid"].gate == Gate(kind="signal", signal="paid")


def test_a_workflow_inside_a_step_has_its_inputs_as_the_payload():
    inner = Workflow("inner", inputs={"depth": 2, "n": 0}, at_once=3, timeout=9)
    inner.returns(inner.step("x", "work", {"n": inner.inputs["n"]}))
    flow = Workflow("outer")
    flow.sub("all", inner, {"n": flow.item}, each=flow.inputs["list"], at_once=2)
    step = steps(flow.spec({"list": [1]}))["all"]
    assert step.flow is not None
    assert [found.id for found in step.flow.steps] == ["x"]
    assert (step.flow.at_once, step.at_once, step.timeout) == (3, 2, 9)
    assert decoded(step.flow.output) == {"from": "x"}
    assert decoded(step.payload) == {"depth": 2, "n": {"from": "item"}}


def test_an_undo_may_be_given_as_a_record():
    flow = Workflow("w")
    flow.step("a", "plan", compensate=Undo(capability="drop"))
    assert steps(flow.spec())["a"].compensate == Undo(capability="drop")


def test_a_condition_is_no_boolean_of_python():
    plan = Workflow("w").step("plan", "plan")
    with pytest.raises(TypeError, match=r"&, \| and ~"):
        bool(plan["a"].above(1))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"join": "most"}, "a.join"),
        ({"retry": {"tries": 3}}, "a.retry"),
        ({"timeout": -1}, "a.timeout"),
        ({"when": float("nan")}, "a.when"),
        ({"prioritty": 3}, "a.prioritty"),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_given(options: dict[str, Any], field: str):
    with pytest.raises(BadInput) as caught:
        Workflow("w").step("a", "plan", **options)
    assert caught.value.field.startswith(field)


def test_what_can_never_run_is_refused_before_it_is_posted():
    flow = Workflow("w")
    a = flow.step("a", "plan")
    flow.step("b", "plan", after=[a], join=2)
    with pytest.raises(BadInput) as caught:
        flow.spec()
    assert caught.value.field == "steps[1].join"


FILE = """
name: release
inputs: {root: docs}
timeout: 600
at_once: 8
steps:
  plan: {capability: docs.plan, payload: {root: {from: inputs, path: root}}}
  page:
    capability: docs.write
    each: plan.files
    at_once: 4
    retry: {attempts: 3, delay: 0.5}
    units: {tokens: 2000}
    compensate: {capability: docs.drop, payload: {from: item}}
    payload: {file: {from: item}}
  ask: {gate: "Publish these?", after: [page]}
  paid: {signal: paid, prompt: "Has it been paid?"}
  check:
    flow:
      steps:
        lint: {capability: docs.lint}
        spell: {capability: docs.spell, after: [lint], join: best_effort}
      output: {from: spell}
  book:
    capability: docs.join
    join: 2
    after: [ask, paid, check]
    when: {value: {from: ask, path: approved}, equals: true}
    payload: {pages: {from: page}}
output: {from: book}
"""


def load(tmp_path: Path, text: str) -> Workflow:
    path = tmp_path / "flow.yaml"
    path.write_text(text)
    return Workflow.load(path)


def test_a_file_says_all_that_the_builder_can(tmp_path: Path):
    run = load(tmp_path, FILE).spec()
    found = steps(run)
    assert (run.timeout, run.at_once) == (600, 8)
    assert found["page"].each == Ref("plan", "files")
    assert found["page"].retry == Retry(attempts=3, delay=0.5)
    assert found["ask"].gate == Gate(prompt="Publish these?")
    assert found["paid"].gate == Gate("signal", "paid", "Has it been paid?")
    assert found["check"].flow is not None
    assert [step.id for step in found["check"].flow.steps] == ["lint", "spell"]
    assert found["book"].join == 2
    assert decoded(run.inputs) == {"root": "docs"}


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("at_once: 4", "at_onse: 4", "steps.page.at_onse"),
        ("attempts: 3", "attempts: 0", "steps.page.retry.attempts"),
        ("join: 2", "join: some", "steps.book.join"),
        ("join: best_effort", "join: most", "steps.check.flow.steps.spell.join"),
        ("timeout: 600", "timeout: 0", "timeout"),
        ("each: plan.files", "each: {from: plan, pth: x}", "steps.page.each"),
    ],
)
def test_a_files_mistake_is_named_by_the_step_that_has_it(
    tmp_path: Path, before: str, after: str, field: str
):
    with pytest.raises(BadInput) as caught:
        load(tmp_path, FILE.replace(before, after, 1))
    assert caught.value.field.startswith(field)
    assert "flow.yaml" in caught.value.reason
