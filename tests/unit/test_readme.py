"""The documentation keeps its word: its commands, links, snippets and test names exist."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import callboard
from callboard import Workflow
from callboard.cli.commands import app
from callboard_broker.wire import decode_flow_run, decode_post
from tests.commands import running_board

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
GUIDE = ROOT / "docs" / "guide.md"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words after `callboard`, in shell blocks and in code within a line."""
    text = page.read_text()
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(callboard [^`]*)`", text)
    found = [re.search(r"(?:^|[/ ])callboard ((?:[^#|&]*))", line) for line in lines]
    return [match[1].split() for match in found if match and "pip install" not in match[1]]


def test_the_readmes_test_command_is_the_one_that_ci_runs():
    ran = [
        line.removesuffix(" || failed=1")
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line.startswith("python3 -m venv")
    ]
    assert len(ran) == 1
    assert ran[0] in README.read_text().splitlines()


@pytest.mark.timeout(60)
def test_the_readmes_agent_runs_and_answers_the_readmes_post(tmp_path: Path):
    (snippet,) = blocks(README, "python")
    (tmp_path / "hello.py").write_text(snippet)
    with running_board(tmp_path, "--agents", "hello.py") as board:
        done = subprocess.run(
            [sys.executable, "hello.py"],
            cwd=tmp_path,
            env=board.shell.environment(),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello Ada\n", "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_snippets_import_exists(page: Path):
    found = blocks(page, "python")
    own = {name for block in found for name in re.findall(r"\A# (\w+)\.py$", block, re.MULTILINE)}
    for block in found:
        for node in ast.walk(compile(block, str(page), "exec", ast.PyCF_ONLY_AST)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module not in own:
                module = importlib.import_module(node.module)
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing
                if node.module == "callboard":
                    assert {name.name for name in node.names} <= set(callboard.__all__)


def test_the_guides_workflows_can_run(tmp_path: Path):
    (in_python,) = [block for block in blocks(GUIDE, "python") if "Workflow" in block]
    names: dict[str, object] = {}
    exec(compile(in_python, str(GUIDE), "exec"), names)  # noqa: S102  our own page
    flow = names["flow"]
    assert isinstance(flow, Workflow)
    assert [step.id for step in flow.spec().steps] == ["list", "count", "sum"]
    (in_yaml,) = [block for block in blocks(GUIDE, "yaml") if "steps:" in block]
    (tmp_path / "word_count.yaml").write_text(in_yaml)
    steps = Workflow.load(tmp_path / "word_count.yaml").spec({"root": "src"}).steps
    assert [step.id for step in steps] == ["list", "count", "sum"]


def test_the_examples_workflow_can_run():
    flow = Workflow.load(ROOT / "examples" / "word_count" / "word_count.yaml")
    assert [step.capability for step in flow.spec().steps] == [
        "count.list",
        "count.file",
        "count.sum",
    ]


def test_the_messages_of_the_protocol_page_are_accepted():
    found = blocks(ROOT / "docs" / "protocol.md", "json")
    assert decode_post(found[0].encode()).key == "order-17"
    (flow,) = [block for block in found if '"steps"' in block]
    assert len(decode_flow_run(flow.encode()).steps) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page: Path):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    targets += re.findall(r"^\[[^\]]+\]: (\S+)$", page.read_text(), re.MULTILINE)
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [README, GUIDE], ids=lambda page: page.name)
def test_every_command_and_option_that_is_named_exists(page: Path):
    from_pages = commands(page)
    assert len(from_pages) > 5
    for words in from_pages:
        found = get_command(app)
        context = None
        for word in words:
            if not hasattr(found, "get_command"):
                break
            context = found.make_context(word, [], parent=context, resilient_parsing=True)
            found = found.get_command(context, word)
            assert found is not None, f"callboard {' '.join(words)}"
        known = {name for option in found.params for name in option.opts + option.secondary_opts}
        named = {word.split("=")[0] for word in words if word.startswith("--")}
        assert named <= known | {"--help", "--version"}, f"callboard {' '.join(words)}"


def test_every_test_that_is_named_exists():
    for page in PAGES:
        for path, name in re.findall(
            r"`(?:tests/)?((?:unit|integration|acceptance)/\w+\.py)(?:::(\w+))?`", page.read_text()
        ):
            file = ROOT / "tests" / path
            assert file.is_file(), f"{page.name} names {path}"
            assert not name or f"def {name}(" in file.read_text(), f"{page.name} names {name}"
