"""Files as people write them: one that is broken is named, and the others are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.discovery import discover
from callboard_integrations.bmad.tolerant_yaml import parse_yaml
from callboard_integrations.bmad.v6_rosters import read_order
from callboard_integrations.bmad.v6_skills import merged

AGENT = """# {id}

```yaml
agent:
  name: Ada
  id: {id}
  title: Engine Builder
persona:
  role: Builds engines
  identity: Careful
commands:
  - help: show this
  - gate {{story}}: decide
```
"""


def agent_at(project: Path, name: str, text: str = AGENT, pack: str = ".bmad-core") -> Path:
    path = project / pack / "agents" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("{id}", name).replace("{{", "{").replace("}}", "}").encode())
    return path


def test_one_bad_file_of_each_kind_leaves_the_rest_of_the_roster(tmp_path: Path):
    agent_at(tmp_path, "dev")
    agent_at(tmp_path, "prose", "no block here\n")
    agent_at(tmp_path, "empty", "")
    agent_at(tmp_path, "list", "```yaml\n- a\n- b\n```\n")
    (tmp_path / ".bmad-core/agents/binary.md").write_bytes(b"```yaml\n\xff\xfe\n```\n")
    (tmp_path / ".bmad-core/agents/huge.md").write_bytes(b"x" * 300_000)
    (tmp_path / ".bmad-core/agents/folder.md").mkdir()
    roster = discover(tmp_path)
    assert [one.id for one in roster.personas] == ["dev"]
    refused = {one.path.rpartition("/")[2] for one in roster.files if one.state == "refused"}
    assert refused == {"prose.md", "empty.md", "list.md", "binary.md", "huge.md", "folder.md"}


def test_a_link_out_of_the_project_is_not_followed(tmp_path: Path):
    outside = tmp_path / "elsewhere.md"
    outside.write_text(AGENT)
    project = tmp_path / "project"
    agent_at(project, "dev")
    (project / ".bmad-core/agents/other.md").symlink_to(outside)
    roster = discover(project)
    assert [one.id for one in roster.personas] == ["dev"]
    assert [one.code for one in roster.diagnostics] == ["outside"]


def test_a_section_that_cannot_be_mended_is_left_out_with_its_line(tmp_path: Path):
    text = AGENT.replace("commands:", "broken: [1, 2\nother: {\ncommands:")
    agent_at(tmp_path, "dev", text)
    roster = discover(tmp_path)
    (persona,) = roster.personas
    assert persona.role == "Builds engines"
    assert [one.name for one in persona.commands] == ["help", "gate"]
    lines = {one.message.split("`")[1]: one.line for one in roster.diagnostics}
    assert set(lines) == {"broken", "other"}
    written = text.splitlines()
    for name, line in lines.items():
        near = written[: (line or 0)]
        assert any(row.startswith(name) for row in near[-2:])


def test_carriage_returns_and_a_byte_order_mark_stay_in_the_text(tmp_path: Path):
    path = agent_at(tmp_path, "dev", "\ufeff" + AGENT.replace("\n", "\r\n"))
    (persona,) = discover(tmp_path).personas
    assert persona.raw.encode() == path.read_bytes()
    assert persona.title == "Engine Builder"


@pytest.mark.parametrize(
    "body",
    [
        "a: &x [1]\nb: *x\n",
        "a: !!python/object:os.system x\n",
        "a: " + "[" * 100 + "\n",
        "deep:\n  ? [1, 2]\n  : 3\n",
        "a: 1\na: 2\n",
    ],
)
def test_what_the_strict_reader_refuses_is_said_and_never_built(body: str):
    findings = Findings("x.yaml")
    found = parse_yaml(f"kept: yes it is\n{body}", findings)
    assert found["kept"] == "yes it is"
    assert findings.found


def test_the_newest_generation_is_read_and_the_older_named(tmp_path: Path):
    agent_at(tmp_path, "dev")
    new = tmp_path / "_bmad" / "bmm" / "agents"
    new.mkdir(parents=True)
    (new / "dev.md").write_text('<agent id="x" name="Eve" title="Dev"><persona/></agent>')
    roster = discover(tmp_path)
    assert [one.name for one in roster.personas] == ["Eve"]
    assert [(one.path, one.code) for one in roster.diagnostics if one.code == "older"] == [
        (".bmad-core", "older")
    ]


def test_packs_in_dot_folders_have_names_of_their_own(tmp_path: Path):
    agent_at(tmp_path, "analyst")
    agent_at(tmp_path, "analyst", pack=".games")
    (tmp_path / ".games" / "config.yaml").write_text("name: games\n")
    agent_at(tmp_path, "stranger", pack=".unrelated")
    roster = discover(tmp_path)
    assert [one.capability for one in roster.personas] == [
        "persona.core.analyst",
        "persona.games.analyst",
    ]
    assert roster.persona("analyst", "games") is roster.personas[1]


def test_nothing_to_read_names_where_it_was_looked_for(tmp_path: Path):
    with pytest.raises(BadInput, match=r"\.bmad-core"):
        discover(tmp_path)
    with pytest.raises(BadInput, match="no folder or file"):
        discover(tmp_path / "nowhere")


def test_one_file_alone_can_be_read(tmp_path: Path):
    path = agent_at(tmp_path, "dev")
    assert [one.id for one in discover(path).personas] == ["dev"]


SKILL = "---\nname: {name}\ndescription: builds\n---\n\n# Ada\n"


def skill_at(root: Path, name: str, customize: str) -> None:
    folder = root / "skills" / name
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(SKILL.replace("{name}", name))
    (folder / "customize.toml").write_text(customize)


def test_a_projects_overrides_are_laid_over_a_skill_and_leave_its_text(tmp_path: Path):
    root = tmp_path / "_bmad"
    skill_at(
        root,
        "agent-dev",
        '[agent]\nname = "Ada"\ntitle = "Dev"\nrole = "builds"\nprinciples = ["one"]\n'
        '[[agent.menu]]\ncode = "B"\ndescription = "build"\nskill = "build"\n',
    )
    custom = root / "custom"
    custom.mkdir()
    (custom / "agent-dev.toml").write_text(
        '[agent]\nrole = "repairs"\nprinciples = ["two"]\n'
        '[[agent.menu]]\ncode = "B"\ndescription = "mend"\nskill = "mend"\n'
    )
    (custom / "agent-dev.user.toml").write_text('[agent]\nrole = "watches"\n')
    (persona,) = discover(tmp_path).personas
    assert (persona.role, persona.principles) == ("watches", ("one", "two"))
    assert [one.name for one in persona.commands] == ["mend"]
    assert persona.raw == SKILL.replace("{name}", "agent-dev")
    assert persona.overrides["role"] == "watches"


def test_broken_toml_is_named_by_line_and_costs_no_other_skill(tmp_path: Path):
    root = tmp_path / "_bmad"
    skill_at(root, "agent-dev", '[agent]\nname = "Ada"\nrole = \n')
    skill_at(root, "agent-qa", '[agent]\nname = "Bea"\ntitle = "QA"\n')
    roster = discover(tmp_path)
    assert [one.name for one in roster.personas] == ["Bea"]
    (broken,) = [one for one in roster.diagnostics if one.code == "toml"]
    assert (broken.path, broken.line) == ("_bmad/skills/agent-dev/customize.toml", 3)


def test_a_flat_manifest_makes_a_skill_an_agent(tmp_path: Path):
    folder = tmp_path / ".claude" / "skills" / "bmad-agent-sm"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(SKILL)
    (folder / "bmad-skill-manifest.yaml").write_text(
        "type: agent\ndisplayName: Bob\nrole: prepares\ncommunicationStyle: brief\n"
    )
    (persona,) = discover(tmp_path).personas
    assert (persona.name, persona.style) == ("Bob", "brief")
    assert "sm" in persona.names


def test_keyed_tables_replace_and_other_lists_append():
    under = {"a": {"x": 1, "y": [1]}, "menu": [{"code": "A", "n": 1}, {"code": "B"}], "s": "old"}
    over = {"a": {"y": [2]}, "menu": [{"code": "A", "n": 2}, {"code": "C"}], "s": "new"}
    assert merged(under, over) == {
        "a": {"x": 1, "y": [1, 2]},
        "menu": [{"code": "A", "n": 2}, {"code": "B"}, {"code": "C"}],
        "s": "new",
    }


def test_a_list_of_agents_adds_those_that_have_no_file(tmp_path: Path):
    root = tmp_path / "_bmad" / "_config"
    root.mkdir(parents=True)
    (root / "agent-manifest.csv").write_text(
        "name,displayName,title,icon,role,identity,communicationStyle,principles,module,path\n"
        '"dev","Ada","Dev","x","builds","careful","brief","- one\n- two","bmm","gone.md"\n'
        "broken\n"
    )
    roster = discover(tmp_path)
    first = roster.personas[0]
    assert (first.id, first.pack, first.principles) == ("dev", "bmm", ("one", "two"))


def test_an_order_by_skill_goes_after_what_it_names():
    text = (
        "module,skill,display-name,phase,preceded-by,required,outputs\n"
        "M,ship,Ship,2,make,true,\n"
        "M,make,Make,1,,true,a thing\n"
        "M,help,Help,anytime,,false,\n"
    )
    found = read_order(text, Findings("x.csv"), pack="m", personas=[])
    assert found is not None
    (sequence,) = found.sequences
    assert [one.name for one in sequence.steps] == ["make", "ship"]
    assert [one.name for one in sequence.steps[1].requires] == ["a thing"]


def test_a_dependency_that_is_missing_is_a_warning_with_or_without_its_ending(tmp_path: Path):
    text = AGENT.replace(
        "commands:", "dependencies:\n  tasks:\n    - there\n    - gone.md\ncommands:"
    )
    agent_at(tmp_path, "dev", text)
    tasks = tmp_path / ".bmad-core" / "tasks"
    tasks.mkdir()
    (tasks / "there.md").touch()
    missing = [one.message for one in discover(tmp_path).diagnostics]
    assert missing == ["it needs tasks/gone.md, which is not there"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "<agent " * 35_000,
        '<agent name="' * 19_000,
        "<agent name='x'>" + "<item " * 40_000,
        "<agent name='x'>" + "<persona><role " * 16_000,
        "```yaml\nagent: {id: other}\n" + "\n" * 240_000,
        "```yaml\nagent: {id: a}\ncommands: [" + "x" * 240_000 + "]\n```\n",
        "```yaml\n" + "- " * 120_000 + "\n```\n",
        '```yaml\n- "' + "\\" * 240_000 + "\n```\n",
    ],
    ids=["agents", "quotes", "items", "roles", "blank", "word", "dashes", "slashes"],
)
def test_a_file_made_to_be_slow_is_read_in_time(tmp_path: Path, text: str):
    agent_at(tmp_path, "slow", text)
    compiled = tmp_path / "_bmad" / "bmm" / "agents" / "slow.md"
    compiled.parent.mkdir(parents=True)
    compiled.write_text(text)
    for path in (tmp_path, tmp_path / ".bmad-core"):
        assert len(discover(path).files) <= 1
