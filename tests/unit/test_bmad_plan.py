"""A plan shows what waits for what, who does it, and what is asked, before anything runs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.drawing import reduced, to_mermaid, to_svg
from callboard_integrations.bmad.flow import RunOptions, to_workflow
from callboard_integrations.bmad.plan import Plan, make_plan
from callboard_integrations.bmad.v4_workflows import read_workflow
from callboard_integrations.bmad.workflow_file import WorkflowFile, artifacts_of
from tests.released_files import roster_of

CORE = [
    f"{kind}-{what}"
    for kind in ("brownfield", "greenfield")
    for what in ("fullstack", "service", "ui")
]
EVERYTHING = RunOptions(run="test", other_answers=True)


def plan_of(tag: str, name: str, sequence: str | None = None, **assign: str) -> Plan:
    roster = roster_of(tag)
    return make_plan(roster, roster.workflow(name), sequence, assign=assign)


def test_the_large_workflow_is_nearly_linear_as_its_users_found():
    plan = plan_of("v4.44.3", "core/greenfield-fullstack")
    asides = [one for one in plan.steps if [gate.why for gate in one.gates] == ["choice"]]
    assert len(plan.steps) - len(asides) == 19
    # 18 steps deep without what may be done before the first
    assert plan.depth == 19
    assert plan.width == 3
    assert {one.id: one.loop for one in plan.steps if one.loop} == dict.fromkeys(
        [
            "create_story",
            "review_draft_story",
            "implement_story",
            "review_implementation",
            "address_qa_feedback",
        ],
        "create_story",
    )


def test_a_step_waits_for_the_last_writer_of_what_it_requires():
    plan = plan_of("v4.44.3", "core/greenfield-fullstack")
    steps = {one.id: one for one in plan.steps}
    assert steps["implement_story"].after == ("review_draft_story",)
    assert set(steps["ux-expert-2"].after) == {"ux-expert"}
    assert steps["po"].is_barrier
    assert len(steps["po"].after) == 11
    assert not steps["pm"].is_barrier


def test_whoever_made_a_document_revises_it_where_a_workflow_says_various():
    plan = plan_of("v4.44.3", "core/greenfield-service")
    (various,) = [one for one in plan.steps if one.who == "various"]
    assert [one.id for one in various.personas] == ["analyst", "pm", "architect"]


def test_somebody_is_assigned_where_nobody_is():
    plan = plan_of("v4.44.3", "bmad-godot-game-dev/godot-game-dev-greenfield")
    assert {one.unresolved for one in plan.unresolved} == {("game-dev",)}
    with pytest.raises(BadInput, match="--assign game-dev=PERSONA"):
        to_workflow(plan, EVERYTHING)
    roster = roster_of("v4.44.3")
    found = make_plan(
        roster,
        roster.workflow("bmad-godot-game-dev/godot-game-dev-greenfield"),
        assign={"game-dev": "game-developer"},
    )
    assert not found.unresolved
    to_workflow(found, EVERYTHING).spec()


@pytest.mark.parametrize("tag", ["v4.0.0", "v4.44.3", "v6.0.0"])
def test_every_sequence_whose_agents_are_there_can_be_posted(tag: str):
    roster = roster_of(tag)
    count = 0
    for workflow in roster.workflows:
        for sequence in workflow.sequences:
            plan = make_plan(roster, workflow, sequence.name)
            if not plan.unresolved:
                to_workflow(plan, EVERYTHING).spec()
                count += 1
    assert count == {"v4.0.0": 12, "v4.44.3": 21, "v6.0.0": 1}[tag]


def test_every_core_workflow_of_v4_plans_without_anybody_missing():
    for tag in ("v4.0.0", "v4.44.3"):
        for name in CORE:
            for sequence in roster_of(tag).workflow(f"core/{name}").sequences:
                assert not plan_of(tag, f"core/{name}", sequence.name).unresolved


def test_a_condition_that_nobody_answered_waits_for_a_signal_of_its_name():
    plan = plan_of("v4.44.3", "core/brownfield-service")
    asked = to_workflow(plan, RunOptions(run="test", answers={"po_checklist_issues": False}))
    steps = asked.spec().steps
    signals = [one.gate.signal for one in steps if one.gate is not None]
    assert signals == ["epic_complete"]
    wave = next(one.flow for one in steps if one.flow is not None)
    epic = next(one.flow for one in wave.steps if one.flow is not None)
    story = next(one.flow for one in epic.steps if one.flow is not None)
    assert {one.gate.signal for one in story.steps if one.gate is not None} == {
        "spec_checkpoint",
        "user_wants_story_review",
        "review_implementation_wanted",
        "qa_left_unchecked_items",
    }


def test_an_answer_to_nothing_is_refused_by_name():
    plan = plan_of("v4.44.3", "core/brownfield-service")
    with pytest.raises(BadInput, match="po_checklist_issues"):
        to_workflow(plan, RunOptions(run="test", answers={"unheard_of": True}))


def test_the_three_dialects_agree_about_the_same_work():
    said = {
        "sequence": "workflow:\n  id: w\n  sequence:\n"
        "    - {agent: a, creates: x.md}\n    - {agent: b, requires: x.md, creates: y.md}\n",
        "phases": "workflow:\n  id: w\n  phases:\n    one:\n      - {agent: a, output: x.md}\n"
        "    two:\n      - {agent: b, input: x.md, output: y.md}\n",
        "steps": "name: w\nsteps:\n  - {id: a, agent: a, outputs: x.md}\n"
        "  - {id: b, agent: b, inputs: [x.md], outputs: y.md}\n",
    }
    for dialect, text in said.items():
        from_file = _read(text)
        assert from_file.dialect == dialect
        plan = make_plan(roster_of("v4.0.0"), from_file)
        assert [one.after for one in plan.steps] == [(), (plan.steps[0].id,)]


def _read(text: str) -> WorkflowFile:
    found = read_workflow(text, Findings("w.yaml"), pack="core", stem="w")
    assert found is not None
    return found


def test_artifacts_are_read_as_people_write_them():
    (one,) = artifacts_of("prd.md (if needed)")
    assert (one.name, one.is_optional) == ("prd.md", True)
    (one,) = artifacts_of("simple_epic OR single_story")
    assert one.names == ("simple_epic", "single_story")
    assert [one.name for one in artifacts_of("a.md, b.md (or c, d)")] == ["a.md", "b.md"]
    assert artifacts_of(None) == ()
    assert artifacts_of("all_artifacts_in_project")[0].is_everything
    assert artifacts_of("any_flagged_documents")[0].is_everything


def test_routes_stand_beside_each_other_and_each_is_asked():
    plan = plan_of("v4.44.3", "core/brownfield-fullstack")
    routes = [one for one in plan.steps if one.gates and one.gates[0].why == "route"]
    assert [one.id for one in routes] == ["single_story", "small_feature"]
    assert routes[0].after == routes[1].after


def test_a_picture_is_well_formed_and_names_every_step():
    plan = plan_of("v4.44.3", "core/greenfield-ui")
    root = ET.fromstring(to_svg(plan))  # noqa: S314  it is our own
    texts = {found.text for found in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {one.id for one in plan.steps} <= texts
    mermaid = to_mermaid(plan)
    assert mermaid.startswith("flowchart TD\n")
    assert mermaid.count(" --> ") == sum(map(len, reduced(plan).values()))
    assert "subgraph" in mermaid
