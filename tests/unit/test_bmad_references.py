"""What a step names of its persona's own files reaches the model as data, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callboard.testing import run_agent
from callboard_integrations.bmad import Answer, Persona, Request, Workshop, agents_of
from callboard_integrations.bmad.assignment import Assignment
from callboard_integrations.bmad.discovery import discover
from callboard_integrations.bmad.references import References

AGENT = """```yaml
agent: {name: N, id: ada, title: T}
persona: {role: r, identity: i}
dependencies:
  tasks: [create-doc.md, elicit]
  templates: [prd-tmpl, ../../secret.md, outside.md]
  checklists: [done-checklist.md]
```
"""


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def project_at(folder: Path) -> tuple[Path, Persona]:
    written(
        folder,
        {
            "secret.md": "secret",
            ".bmad-core/agents/ada.md": AGENT,
            ".bmad-core/tasks/create-doc.md": "Fill in prd-tmpl.yaml with elicit.\n",
            ".bmad-core/tasks/elicit.md": "Ask.\n",
            ".bmad-core/tasks/other.md": "of somebody else\n",
            ".bmad-core/templates/prd-tmpl.yaml": "title: the template\n",
            ".bmad-core/checklists/done-checklist.md": "- [ ] done\n",
        },
    )
    (folder / ".bmad-core" / "templates" / "outside.md").symlink_to(folder.parent / "outside.md")
    (folder.parent / "outside.md").write_text("secret")
    return folder, discover(folder).personas[0]


def named(folder: Path, persona: Persona, **step: str) -> dict[str, str]:
    found, left = References(folder, persona).named_by(Assignment(run="r", step="s", **step))
    assert not left
    return found


def test_a_step_names_a_task_and_the_task_a_template(tmp_path: Path):
    project, ada = project_at(tmp_path / "p")
    assert list(named(project, ada, uses="prd-tmpl")) == ["templates/prd-tmpl.yaml"]
    assert list(named(project, ada, notes="Execute create-doc, then go on")) == [
        "tasks/create-doc.md",
        "templates/prd-tmpl.yaml",
    ]
    assert named(project, ada, uses="done-checklist OR elicit") == {
        "tasks/elicit.md": "Ask.\n",
        "checklists/done-checklist.md": "- [ ] done\n",
    }
    assert named(project, ada, notes="elicit what they want") == {}, "a word is no file's name"


def test_no_name_leads_out_of_the_personas_own_files(tmp_path: Path):
    project, ada = project_at(tmp_path / "p")
    for uses in ("../../secret.md", "secret.md", "outside.md", "other", "tasks/../../secret.md"):
        assert named(project, ada, uses=uses) == {}
    v6 = Persona(id="dev", pack="bmm", generation="v6 compiled", path="_bmad/a/dev.md", raw="x")
    written(project, {"_bmad/bmm/prd/workflow.md": "do it"})
    assert named(project, v6, uses="_bmad/bmm/prd/workflow.md") == {"bmm/prd/workflow.md": "do it"}
    for uses in ("secret.md", "_bmad/../secret.md", "../secret.md", str(project / "secret.md")):
        assert named(project, v6, uses=uses) == {}


def test_a_skill_is_handed_on_with_the_files_of_its_folder_that_it_names(tmp_path: Path):
    written(
        tmp_path,
        {
            "_bmad/agents/dev/SKILL.md": "x",
            "_bmad/ship/make-it/SKILL.md": "Follow workflow.md.",
            "_bmad/ship/make-it/workflow.md": "Use templates/spec-template.md.",
            "_bmad/ship/make-it/templates/spec-template.md": "a spec",
            "_bmad/ship/other/workflow.md": "not this one",
        },
    )
    dev = Persona(
        id="dev", pack="m", generation="v6 skill", path="_bmad/agents/dev/SKILL.md", raw=""
    )
    assert list(named(tmp_path, dev, uses="make-it")) == [
        "ship/make-it/SKILL.md",
        "ship/make-it/workflow.md",
        "ship/make-it/templates/spec-template.md",
    ]


def test_what_is_too_much_is_named_and_left_out(tmp_path: Path):
    project, ada = project_at(tmp_path / "p")
    large = project / ".bmad-core" / "templates" / "prd-tmpl.yaml"
    large.write_text("x" * 130 * 1024)
    found, left = References(project, ada).named_by(
        Assignment(run="r", step="s", uses="create-doc.md")
    )
    assert list(found) == ["tasks/create-doc.md"]
    assert left == ["templates/prd-tmpl.yaml"]


class Says:
    name = "says"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def run(self, request: Request) -> Answer:
        self.asked.append(request)
        return Answer(text="done\n")


async def test_the_prompt_holds_the_template_once_read_and_the_system_prompt_the_bytes(
    tmp_path: Path,
):
    project, ada = project_at(tmp_path / "p")
    runner = Says()
    work = agents_of(Workshop(project, runner), [ada])[0]
    task: dict[str, Any] = {"run": "r", "step": "prd", "creates": ["prd.md"], "uses": "prd-tmpl"}
    await run_agent(work, task)
    (project / ".bmad-core" / "templates" / "prd-tmpl.yaml").write_text("changed")
    await run_agent(work, task | {"step": "again"})
    for request in runner.asked:
        assert "=== your own templates/prd-tmpl.yaml ===\ntitle: the template\n" in request.prompt
        assert request.system.encode() == (project / ada.path).read_bytes()
