"""Stories as people write them, the plans that are made of them, and the budgets of profiles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from callboard_broker.errors import BadInput
from callboard_integrations.caef import PlanAgent, load_settings
from callboard_integrations.caef.story_file import read_story

OLDER = """# Story 1.2: A basket

## Status
Approved

## Story
**As a** guest, **I want** a basket, **so that** I can buy two teas.

## Acceptance Criteria
1. A tea can be put in,
   and taken out again.
2. The sum is shown.
3. An empty basket says so.

## Tasks / Subtasks
- [ ] Task 1: put in and take out (AC: 1)
  - [x] put in
  - [ ] take out
- [x] Task 2: the sum (AC: #2)

```python
- [ ] no task
```

## Dev Notes
- [ ] no task either

### File List
- `src/basket.py`
- tests/test_basket.py
"""

NEWER = """# Story 2.1: The bill\r
\r
Status: ready-for-dev\r
\r
## Acceptance Criteria\r
\r
The bill is printed.\r
\r
It has a date.\r
\r
## Tasks / Subtasks\r
\r
* [ ] Print it\r
"""

FAILURES = [
    {"test": "tests/test_a.py::test_one", "file": "tests/test_a.py", "error": "assert 1 == 2"},
    {"test": "tests/test_a.py::test_two", "file": "tests/test_a.py", "suspects": ["src/a.py"]},
    {"test": "tests/test_b.py::test_x", "file": "tests/test_b.py"},
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "older.md").write_text(OLDER)
    (tmp_path / "newer.md").write_bytes(NEWER.encode())
    return tmp_path


def test_a_story_is_read_with_criteria_tasks_subtasks_and_files(project: Path):
    story = read_story(project / "older.md", inside=project)
    assert (story.title, story.status) == ("Story 1.2: A basket", "Approved")
    assert story.story.startswith("As a guest")
    assert story.criteria == [
        "A tea can be put in, and taken out again.",
        "The sum is shown.",
        "An empty basket says so.",
    ]
    assert [(one.text, one.done, one.criteria) for one in story.tasks] == [
        ("Task 1: put in and take out", False, (1,)),
        ("Task 2: the sum", True, (2,)),
    ]
    assert story.tasks[0].subtasks == [("put in", True), ("take out", False)]
    assert story.files == ["src/basket.py", "tests/test_basket.py"]


def test_a_story_of_the_newer_kind_with_carriage_returns_is_read(project: Path):
    story = read_story(project / "newer.md", inside=project)
    assert story.status == "ready-for-dev"
    assert story.criteria == ["The bill is printed.", "It has a date."]
    assert [one.text for one in story.tasks] == ["Print it"]


@pytest.mark.parametrize("text", ["", "# A title\n\nSome words.\n", "```\n- [ ] fenced\n```\n"])
def test_a_file_that_plans_nothing_says_what_to_write(tmp_path: Path, text: str):
    (tmp_path / "x.md").write_text(text)
    with pytest.raises(BadInput, match="Acceptance Criteria"):
        PlanAgent(story="x.md", root=tmp_path).run()


def test_a_story_with_more_tasks_than_are_read_is_refused_and_not_cut(tmp_path: Path):
    boxes = "\n".join(f"- [ ] task {number}" for number in range(500))
    (tmp_path / "x.md").write_text(f"# A title\n\n## Tasks\n{boxes}\n\n")
    with pytest.raises(BadInput, match="'tasks' has more than 500 lines; split the story"):
        read_story(tmp_path / "x.md", inside=tmp_path)
    notes = "word\n" * 900
    (tmp_path / "x.md").write_text(f"# A title\n\n## Notes\n{notes}\n## Tasks\n{boxes}")
    assert len(read_story(tmp_path / "x.md", inside=tmp_path).tasks) == 500


def test_a_story_outside_of_the_project_is_not_read(project: Path):
    inner = project / "inner"
    inner.mkdir()
    with pytest.raises(BadInput, match="leads out"):
        PlanAgent(story="../older.md", root=inner).run()


def test_a_plan_has_open_tasks_and_criteria_that_no_task_is_about(project: Path):
    found = PlanAgent("quick", story="older.md", root=project).run()
    assert set(found) == {"status", "profile", "verify_paths", "max_steps_enforced", "plan"}
    assert set(found["plan"]) == {"steps", "success_checks", "suspect_scope"}
    assert (found["status"], found["profile"]) == ("planned", "quick")
    assert [(one["kind"], one["title"]) for one in found["plan"]["steps"]] == [
        ("task", "Task 1: put in and take out"),
        ("criterion", "An empty basket says so."),
    ]
    assert found["plan"]["steps"][0]["details"] == ["take out"]
    assert len(found["plan"]["success_checks"]) == 3
    assert found["verify_paths"] == ["tests/test_basket.py"]


def test_failures_come_first_file_by_file_and_name_the_suspects(project: Path):
    found = PlanAgent("full", story="older.md", root=project).run(FAILURES, ["src/b.py"])
    titles = [one["title"] for one in found["plan"]["steps"]]
    assert titles[:2] == [
        "mend what fails in tests/test_a.py",
        "mend what fails in tests/test_b.py",
    ]
    assert len(found["plan"]["steps"][0]["details"]) == 2
    assert found["plan"]["success_checks"][0] == "passes: tests/test_a.py::test_one"
    scope = found["plan"]["suspect_scope"]
    assert scope[:3] == ["tests/test_a.py", "src/a.py", "tests/test_b.py"]
    assert "src/b.py" in scope
    assert found["verify_paths"] == []  # this profile runs the whole suite


def test_no_plan_has_more_steps_than_caller_and_profile_allow(project: Path):
    agent = PlanAgent("quick", story="older.md", root=project)
    cut = agent.run(FAILURES, max_steps=2)
    assert (cut["status"], cut["max_steps_enforced"]) == ("truncated", 2)
    assert len(cut["plan"]["steps"]) == 2
    assert agent.run(FAILURES, max_steps=99)["max_steps_enforced"] == 5
    assert PlanAgent(root=project).run()["status"] == "empty"
    with pytest.raises(BadInput, match="max_steps"):
        agent.run(max_steps=0)
    with pytest.raises(BadInput, match="parsed_failures"):
        agent.run([{"tests": "x"}])


def test_a_project_lays_its_own_budgets_over_the_packaged_ones(tmp_path: Path):
    (tmp_path / "caef.yaml").write_text(
        "linter: []\nprofiles:\n  quick: {iterations: 2}\n"
        "  night: {max_steps: 9, iterations: 9, restarts: 0, iteration_seconds: 60,\n"
        "    test_seconds: 5, lint_seconds: 5, max_failures: 1, whole_suite: true,\n"
        "    verify_paths: [tests]}\n"
    )
    found = load_settings(tmp_path)
    assert found.linter == []
    assert found.profile("quick").iterations == 2
    assert found.profile("quick").max_steps == load_settings(None).profile("quick").max_steps
    assert found.profile("night").verify_paths == ["tests"]
    assert PlanAgent("night", root=tmp_path).run()["verify_paths"] == ["tests"]
    with pytest.raises(BadInput, match="there are full, night, quick"):
        PlanAgent("slow", root=tmp_path)


def test_a_plan_loads_nothing_that_only_tests_models_or_boards_need():
    code = (
        "import sys; from callboard_integrations.caef import PlanAgent, ImplementAgent;"
        "print(*sorted({'pytest', 'httpx', 'langgraph', 'typer', 'callboard', 'callboard_router'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pyton: x\n", "pyton"),
        ("profiles: {quick: {iterations: 0}}\n", "profiles.quick.iterations"),
        ("profiles: {own: {iterations: 1}}\n", "profiles.own.max_steps"),
        ("processes: no\n", "processes"),
        ("read: [relative]\n", "read.0"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, text: str, key: str):
    (tmp_path / "caef.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"caef\.yaml") as found:
        load_settings(tmp_path)
    assert found.value.field == key
