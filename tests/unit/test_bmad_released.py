"""The real files of six releases load, or are diagnosed by line; one bad file costs no other."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from callboard_integrations.bmad.diagnostics import Diagnostic
from callboard_integrations.bmad.roster import Roster
from tests.released_files import roster_of

PACKS = {
    "core": 10,
    "bmad-2d-phaser-game-dev": 3,
    "bmad-2d-unity-game-dev": 4,
    "bmad-creative-writing": 10,
    "bmad-godot-game-dev": 10,
    "bmad-infrastructure-devops": 1,
}


def said(roster: Roster, code: str) -> list[Diagnostic]:
    return [one for one in roster.diagnostics if one.code == code]


def named_in(one: Diagnostic) -> str:
    return re.findall("agent '(.*?)'", one.message)[0]


def test_every_agent_of_the_last_v4_release_loads_without_a_complaint():
    roster = roster_of("v4.44.3")
    assert Counter(one.pack for one in roster.personas) == PACKS
    states = Counter(one.state for one in roster.files if one.kind == "agent")
    assert states == {"loaded": 38}
    assert len(roster.teams) == 8
    assert len(roster.workflows) == 19
    for persona in roster.personas:
        assert persona.title
        assert persona.role
        assert persona.identity
        assert persona.commands
        assert persona.principles


def test_the_ten_malformed_agents_of_the_first_v4_release_are_mended_and_named_by_line():
    roster = roster_of("v4.0.0")
    mended = said(roster, "yaml-mended")
    assert len(roster.personas) == len(mended) == 10
    lines = {one.path.rpartition("/")[2]: one.line for one in mended}
    assert lines["bmad-orchestrator.md"] == 33
    text = (roster.project / ".bmad-core/agents/bmad-orchestrator.md").read_text()
    assert text.splitlines()[32] == '  - "*help" - Show commands/workflows/agents'
    chief = roster.persona("bmad-orchestrator")
    assert chief is not None
    assert [command.name for command in chief.commands][:3] == ["help", "chat-mode", "kb-mode"]
    assert [command.argument for command in chief.commands if command.name == "agent"] == ["{name}"]


def test_an_agent_without_a_closing_fence_is_read_to_its_end():
    roster = roster_of("v4.39.0")
    (critic,) = roster.personas
    assert critic.id == "book-critic"
    assert critic.commands
    (found,) = said(roster, "open-block")
    assert found.path.endswith("agents/book-critic.md")
    assert found.line


def test_all_forty_nine_v4_agents_are_there():
    rosters = [roster_of(tag) for tag in ("v4.0.0", "v4.39.0", "v4.44.3")]
    assert sum(len(roster.personas) for roster in rosters) == 49


def test_markdown_in_place_of_a_workflow_is_refused_alone():
    roster = roster_of("v4.44.3")
    refused = [one for one in roster.files if one.state == "refused"]
    assert [one.path.rpartition("/")[2] for one in refused] == ["book-cover-design-workflow.md"]
    assert len([one for one in roster.workflows if one.pack == "bmad-creative-writing"]) == 7


def test_an_id_that_differs_from_its_file_is_found_by_both_in_its_own_pack():
    roster = roster_of("v4.44.3")
    assert {one.message.split("'")[1] for one in said(roster, "other-id")} == {"analyst", "pm"}
    by_file = roster.persona("game-pm", "bmad-godot-game-dev")
    by_id = roster.persona("pm", "bmad-godot-game-dev")
    assert by_file is by_id is not None
    core = roster.persona("pm")
    assert core is not None
    assert core.pack == "core"
    capabilities = [one.capability for one in roster.personas]
    assert len(set(capabilities)) == len(capabilities)


def test_an_agent_that_a_workflow_names_and_nobody_is_has_a_line():
    roster = roster_of("v4.44.3")
    missing = said(roster, "agent-missing")
    named = {(one.path.split("/")[1], named_in(one)) for one in missing}
    assert named == {
        ("bmad-2d-phaser-game-dev", "solution-architect"),
        ("bmad-2d-unity-game-dev", "solution-architect"),
        ("bmad-godot-game-dev", "game-dev"),
    }
    for one in missing:
        text = (roster.project / one.path).read_text().splitlines()
        assert one.line
        assert named_in(one) in text[one.line - 1]


@pytest.mark.parametrize("tag", ["v4.0.0", "v4.39.0", "v4.44.3", "v6.0.0-alpha.5", "v6.11.0"])
def test_the_text_of_every_persona_is_the_bytes_of_its_file(tag: str):
    roster = roster_of(tag)
    for persona in roster.personas:
        if persona.generation != "v6 roster":
            assert (roster.project / persona.path).read_bytes() == persona.raw.encode()


def test_compiled_agents_of_v6_are_read_though_their_attributes_are_not_escaped():
    roster = roster_of("v6.0.0-alpha.5")
    assert Counter(one.generation for one in roster.personas) == {"v6 compiled": 15}
    assert Counter(one.kind for one in roster.files) == {"agent": 15, "list": 1, "override": 16}
    assert {one.state for one in roster.files} == {"loaded"}
    bob = roster.persona("sm", "bmm")
    assert bob is not None
    assert (bob.name, bob.title, bob.icon) == ("Bob", "Scrum Master", "🏃")
    assert bob.role == "Technical Scrum Master + Story Preparation Specialist"
    assert "create-story" in [command.name for command in bob.commands]
    assert all(one.title and one.role and one.commands for one in roster.personas)


def test_agent_yaml_of_v6_is_read_and_its_party_list_adds_who_has_no_file():
    roster = roster_of("v6.0.0")
    assert Counter(one.generation for one in roster.personas) == {
        "v6 source": 10,
        "v6 roster": 11,
    }
    assert {one.state for one in roster.files} == {"loaded"}
    amelia = roster.persona("dev", "bmm")
    assert amelia is not None
    assert amelia.name == "Amelia"
    assert amelia.principles[0].startswith("All existing and new tests must pass")
    assert [command.name for command in amelia.commands] == ["DS", "CR"]


def test_skills_of_v6_are_read_with_what_customizes_them():
    roster = roster_of("v6.11.0")
    assert {one.id: one.name for one in roster.personas} == {
        "bmad-agent-analyst": "Mary",
        "bmad-agent-architect": "Winston",
        "bmad-agent-dev": "Amelia",
        "bmad-agent-pm": "John",
        "bmad-agent-ux-designer": "Sally",
    }
    assert {one.state for one in roster.files} == {"loaded"}
    amelia = roster.persona("dev", "bmm")
    assert amelia is not None
    assert amelia.commands[0].name == "bmad-build"
    assert len(amelia.principles) == 6
