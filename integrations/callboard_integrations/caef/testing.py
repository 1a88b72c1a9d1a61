"""Has a project's tests run in the sandbox of child processes, on a board or without one.

Tests are code of whoever wrote them, so they run as a command agent does: behind every layer that
the machine offers, with limits, in a folder of their own. The project is read and never written
to. What comes back is bounded, and checked as a stranger's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from callboard_agents.agent import Agent
from callboard_agents.cell_plans import cell_plans
from callboard_agents.command_agents import command_agent
from callboard_agents.limits import Limits
from callboard_agents.options import HostOptions
from callboard_agents.sandbox import Ending, TaskHeader, open_nursery
from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure
from callboard_config.cpus import usable_cpus
from callboard_integrations.caef.records import (
    LintReport,
    Report,
    TestReport,
    TestSummary,
    TestWanted,
)
from callboard_integrations.caef.settings import CaefSettings

__all__ = ["TEST", "checked_paths", "is_green", "read_report", "run_in_sandbox", "testing_agent"]

TEST = "caef.test"
"""The capability."""

_SPARE_SECONDS = 30.0  # for the copy, and for a program that is killed
_LONGEST_SECONDS = 2 * 86_400.0
_LEAST_SLOTS = 2
_OUTPUT_MB = 4.0
_FILES = 1024


def testing_agent(settings: CaefSettings, project: Path, reads: Path) -> Agent[[Any], Any]:
    """The agent that runs tests. reads: the folder below which the trees to be tested lie.

    Raises `BadInput` if there is no such interpreter.
    """
    python = _interpreter(settings, project)
    program = Path(__file__).with_name("sandboxed.py").read_text(encoding="utf-8")
    return command_agent(
        TEST,
        [str(python), "-c", program],
        env=settings.env,
        name="TestAgent",
        slots=max(_LEAST_SLOTS, math.ceil(usable_cpus())),
        timeout=_LONGEST_SECONDS,  # its program ends earlier, by what it is asked
        memory_mb=settings.memory_mb,
        limits=Limits(
            read=[str(reads), *_needed_by(python), *settings.read],
            network=settings.network,
            processes=settings.processes,
            disk_mb=settings.disk_mb,
            output_mb=_OUTPUT_MB,
            files=_FILES,
        ),
    )


def run_in_sandbox(agent: Agent[[Any], Any], wanted: TestWanted) -> Report:
    """Run one test without a board, from wherever it is called; what fails is in the report.

    Raises `BadInput` if the sandbox cannot be had.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # the caller may have a loop
        ending = pool.submit(asyncio.run, _run(agent, wanted)).result()
    if ending.failure is not None:
        return _broken(ending.failure)
    return read_report(msgspec.json.decode(ending.result or b"null"))


def read_report(found: Any) -> Report:
    """A report as the sandbox has printed it. Raises `BadInput`."""
    try:
        return msgspec.convert(found, Report)
    except msgspec.ValidationError as error:
        raise BadInput("report", f"is not what the tests' program prints: {error}") from error


def is_green(report: Report, *, lint_gate: bool) -> bool:
    """Whether the tests have passed, and the linter too, where it is a gate."""
    return report.tests.status == "passed" and (
        not lint_gate or report.lint.status in ("passed", "skipped")
    )


def checked_paths(root: Path, paths: list[str]) -> list[str]:
    """The same, if each is below `root`. Raises `BadInput`. A `::name` of a test may follow."""
    for path in paths:
        name = path.partition("::")[0]
        place = Path(os.path.normpath(root / name))
        if not name or name.startswith("-") or "\0" in path or not place.is_relative_to(root):
            raise BadInput("paths", f"{path!r:.200} is not below the project's folder")
        if not place.resolve().is_relative_to(root.resolve()):
            raise BadInput("paths", f"{path!r:.200} leads out of the project's folder by a link")
        if not place.exists():
            raise BadInput("paths", f"there is no {path!r:.200} in the project")
    return paths


def _interpreter(settings: CaefSettings, project: Path) -> Path:
    """Its path, with links as they are: by them it finds its own environment."""
    if settings.python is None:
        return Path(sys.executable)
    if "/" in settings.python:
        return Path(os.path.abspath(project / settings.python))  # noqa: PTH100  see above
    found = shutil.which(settings.python)
    if found is None:
        raise BadInput("python", f"there is no {settings.python!r} on PATH; name a path")
    return Path(found)


def _needed_by(python: Path) -> list[str]:
    """The environment of an interpreter, and the Python that it is made of."""
    found = dict.fromkeys((python.parents[1], python.resolve().parents[1]))
    return [str(one) for one in found if one != Path("/") and one.is_dir()]


async def _run(agent: Agent[[Any], Any], wanted: TestWanted) -> Ending:
    plans = cell_plans([agent], HostOptions(url="nats://none"))
    heard = _Heard()
    async with open_nursery(places=[], plans=plans) as nursery:
        child = await nursery.wait(TEST)
        seconds = wanted.seconds + wanted.lint_seconds + _SPARE_SECONDS
        header = TaskHeader("1", 1, "local", TEST, seconds)
        child.start(header, msgspec.json.encode(wanted), heard)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(heard.end)
        except TimeoutError:
            child.kill()
            await heard.end
            return Ending(failure=Failure("TimedOut", f"it did not end within {seconds:g} s"))


class _Heard:
    """What a child says: of a command, only its end counts here."""

    def __init__(self) -> None:
        self.end: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def told(self, kind: str, data: bytes) -> None:
        """It logs; what counts is in its report."""

    def asked(self, number: int, kind: str, data: bytes) -> None:
        """A command has no way to ask."""

    def ended(self, ending: Ending) -> None:
        self.end.set_result(ending)


def _broken(failure: Failure) -> Report:
    why = f"{failure.type}: {failure.message}\n{failure.trace or ''}".strip()
    tests = TestReport(
        status="timed_out" if failure.type == "TimedOut" else "broken",
        summary=TestSummary(output=why),
        duration_sec=0.0,
    )
    return Report(tests=tests, lint=LintReport(status="skipped"))
