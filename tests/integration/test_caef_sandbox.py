"""TestAgent without a board: what it reports, and what tests cannot do to the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard_agents.sandbox import available
from callboard_broker.errors import BadInput
from callboard_integrations.caef import TestAgent, load_settings
from tests.caef_project import CaefProject, caef_project

pytestmark = pytest.mark.timeout(60)

MISSING = [layer for layer, reason in available().items() if reason]
GREEN = "from shop.price import double\n\n\ndef test_double() -> None:\n    assert double(2) == 4\n"
PRICE = "def double(amount: int) -> int:\n    return amount * 2\n"


@pytest.fixture(scope="module")
def project() -> Iterator[CaefProject]:
    with caef_project() as found:
        found.write({"src/shop/price.py": PRICE, "tests/test_green.py": GREEN})
        yield found


def ran(project: CaefProject, text: str = "", *, lint_gate: bool = False, **own: Any) -> Any:
    """The report about `tests/test_own.py`, or about all if there is none. own: settings."""
    settings = load_settings(project.root).model_copy(update=own)
    agent = TestAgent("quick", root=project.root, settings=settings)
    path = project.root / "tests" / "test_own.py"
    if not text:
        return agent.run(lint_gate=lint_gate)
    path.write_text(text)
    try:
        return agent.run(["tests/test_own.py"], lint_gate=lint_gate)
    finally:
        path.unlink()


def needs(*layers: str) -> None:
    if missing := set(layers) & set(MISSING):
        pytest.skip(f"this host lacks {', '.join(sorted(missing))}")


def seconds(project: CaefProject, most: float) -> Any:
    """The profiles, with another time for tests."""
    quick = load_settings(project.root).profile("quick")
    return {"quick": quick.model_copy(update={"test_seconds": most})}


async def test_it_reports_with_the_contracts_names_also_from_within_a_loop(project: CaefProject):
    found = ran(project)
    assert set(found) == {"status", "tests", "lint"}
    assert set(found["tests"]) == {"status", "summary", "duration_sec"}
    assert (found["status"], found["tests"]["summary"]["passed"]) == ("passed", 1)
    assert found["lint"]["status"] == "skipped"


def test_each_failure_has_its_name_its_error_and_the_files_of_its_traceback(project: CaefProject):
    (project.root / "src/shop/wrong.py").write_text("def wrong() -> None:\n    raise KeyError(7)\n")
    found = ran(
        project,
        "import pytest\nfrom shop.wrong import wrong\n\nclass TestBox:\n"
        "    def test_wrong(self):\n        wrong()\n\n"
        "    @pytest.mark.parametrize('a', ['x::y', 2])\n    def test_two(self, a):\n"
        "        assert a == 3\n\n"
        "@pytest.fixture\ndef broken():\n    raise OSError('no disk')\n\n"
        "def test_fixture(broken): ...\n\n@pytest.mark.skip\ndef test_later(): ...\n",
    )
    summary = found["tests"]["summary"]
    counts = {name: summary[name] for name in ("passed", "failed", "errors", "skipped")}
    assert counts == {"passed": 0, "failed": 3, "errors": 1, "skipped": 1}
    first = summary["failures"][0]
    assert first["test"] == "tests/test_own.py::TestBox::test_wrong"
    assert first["file"] == "tests/test_own.py"
    assert "KeyError: 7" in first["error"]
    assert first["suspects"] == ["src/shop/wrong.py"]
    assert summary["failures"][1]["test"] == "tests/test_own.py::TestBox::test_two[x::y]"
    assert found["status"] == "failed"


def test_a_module_that_cannot_be_imported_is_a_failure_with_its_file(project: CaefProject):
    summary = ran(project, "import nothing_of_this_name\n")["tests"]["summary"]
    (failure,) = summary["failures"]
    assert (failure["test"], failure["file"]) == ("tests/test_own.py", "tests/test_own.py")
    assert "nothing_of_this_name" in failure["error"]


def test_nothing_collected_is_not_taken_for_green(project: CaefProject):
    found = ran(project, "x = 1\n")
    assert (found["status"], found["tests"]["status"]) == ("failed", "none")


def test_the_linter_fails_the_report_only_where_it_is_a_gate(project: CaefProject):
    text = "import os\n\n\ndef test_it() -> None:\n    assert True\n"
    gated = ran(project, text, lint_gate=True, linter=["ruff", "check"])
    assert (gated["status"], gated["tests"]["status"]) == ("failed", "passed")
    assert (gated["lint"]["status"], "F401" in gated["lint"]["output"]) == ("failed", True)
    told = ran(project, text, linter=["ruff", "check"])
    assert (told["status"], told["lint"]["status"]) == ("passed", "failed")
    missing = ran(project, text, lint_gate=True, linter=["no-such-linter"])
    assert (missing["status"], missing["lint"]["status"]) == ("failed", "missing")


def test_tests_that_take_too_long_are_a_status_of_their_own(project: CaefProject):
    text = "import os, time\n\ndef test_it():\n    os.fork()\n    time.sleep(60)\n"
    found = ran(project, text, profiles=seconds(project, 1.0))
    assert (found["status"], found["tests"]["status"]) == ("failed", "timed_out")
    assert found["tests"]["duration_sec"] < 20


def test_tests_write_into_a_copy_and_nowhere_else(project: CaefProject, tmp_path: Path):
    needs("landlock")
    found = ran(
        project,
        "import os, pathlib, pytest, socket\n\ndef test_own():\n"
        "    pathlib.Path('made').write_text('x')\n\ndef test_others():\n"
        f"    for place in ({str(project.root)!r}, {str(tmp_path)!r}, '/var/tmp'):\n"
        "        with pytest.raises(OSError):\n"
        "            pathlib.Path(place, 'made').write_text('x')\n"
        "    with pytest.raises(OSError):\n        pathlib.Path('/etc/shadow').read_text()\n"
        "    with pytest.raises(OSError):\n        socket.socket()\n"
        "    assert 'SECRET_OF_THE_HOST' not in os.environ\n",
    )
    assert found["status"] == "passed", found["tests"]["summary"]
    assert not (project.root / "made").exists()
    assert project.git("status", "--porcelain", "tests") == ""


def test_tests_that_eat_the_memory_are_reported_and_not_suffered(project: CaefProject):
    needs("cgroup")
    found = ran(project, "def test_it():\n    b'x' * (900 * 2**20)\n", memory_mb=300)
    assert (found["status"], found["tests"]["status"]) == ("failed", "broken")
    assert "memory" in found["tests"]["summary"]["output"].lower()


def test_output_without_end_is_cut(project: CaefProject):
    found = ran(project, "def test_it():\n    print('x' * 5_000_000)\n    assert False\n")
    assert len(str(found)) < 20_000


def test_a_forged_or_broken_results_file_is_no_success(project: CaefProject):
    text = "import os\n\ndef test_it():\n    os._exit(0)\n"
    assert ran(project, text)["tests"]["status"] == "broken"


def test_failures_in_the_results_count_whatever_pytest_ends_with(
    project: CaefProject,
):
    text = (
        "import os\n\ndef test_it():\n    child = os.fork()\n    assert child\n"
        "    os.wait()\n    os._exit(0)\n"
    )
    assert ran(project, text)["tests"]["status"] == "failed"


@pytest.mark.parametrize("path", ["../x", "/etc", "-p", "nowhere.py", "", "tests/\0"])
def test_paths_that_are_none_of_the_projects_are_refused(project: CaefProject, path: str):
    with pytest.raises(BadInput, match="paths"):
        TestAgent(root=project.root).run([path])


def test_an_interpreter_that_is_not_there_is_named(project: CaefProject):
    for python in ("no-such-python", ".venv/bin/python"):
        settings = load_settings(project.root).model_copy(update={"python": python})
        with pytest.raises(BadInput, match="python"):
            TestAgent(root=project.root, settings=settings)
