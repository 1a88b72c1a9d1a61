"""Control groups by the kernel's own hand, and of version 2 the dividing of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from callboard_agents.sandbox import Grant, available
from callboard_agents.sandbox.cgroups import group_maker, group_name, tasks_of
from callboard_agents.sandbox.delegation import divide, members, own_group

pytestmark = pytest.mark.timeout(60)

ROOT = Path("/sys/fs/cgroup")
NEEDED = ("memory", "cpu", "pids")


@pytest.fixture
def job() -> Iterator[Path]:
    """A group that is handed all controllers; whoever was in it is out of it afterwards."""
    if not (ROOT / "cgroup.controllers").exists():
        pytest.skip("version 2 of cgroups is not what this machine runs")
    if reason := available()["cgroup"]:
        pytest.skip(f"no group may be made here: {reason}")
    line = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()[-1]
    base = own_group(ROOT, line.removeprefix("0::"), NEEDED)
    divide(base, NEEDED)
    folder = base / f"job.{os.getpid()}"
    folder.mkdir()
    yield folder
    for each in (*folder.glob("*/"), folder):
        each.rmdir()


def started(stack: ExitStack, folder: Path, *words: str) -> subprocess.Popen[str]:
    """A program that was started in this group, and ends with the block."""
    program = stack.enter_context(
        subprocess.Popen(
            ["/bin/sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(folder), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(program.kill)
    return program


def probed(folder: Path) -> str:
    """Why a host that is started in this group can make none; nothing if it can."""
    with ExitStack() as stack:
        probe = started(stack, folder, sys.executable, "-m", "callboard_agents.sandbox.layers")
        reason: str = json.loads(probe.communicate()[0])["cgroup"]
    return reason


def group_of_process(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").rpartition("/")[2].strip()


def test_a_grant_below_what_the_kernel_can_measure_is_the_least_that_it_can():
    if reason := available()["cgroup"]:
        pytest.skip(f"no group may be made here: {reason}")
    group_maker()(group_name("slow"), Grant(cpu=0.000_1)).remove()


def test_a_group_with_processes_is_divided_and_they_stay_within_its_limits(job: Path):
    (job / "pids.max").write_text("30", encoding="ascii")
    with ExitStack() as stack:
        beside = started(stack, job, "cat")
        assert beside.stdin is not None
        assert beside.stdout is not None
        beside.stdin.write("here\n")
        beside.stdin.flush()
        assert beside.stdout.readline() == "here\n"
        assert probed(job) == ""
        assert group_of_process(beside.pid) == "callboard.leaf"
        assert members(job) == []
        assert (job / "pids.current").read_text(encoding="ascii") == "1\n"
        beside.stdin.write("still\n")
        beside.stdin.flush()
        assert beside.stdout.readline() == "still\n"
        assert tasks_of(beside.pid) is None


def test_what_starts_another_host_from_the_leaf_divides_the_group_no_further(job: Path):
    twice = (
        "import subprocess, sys\n"
        "for _ in range(2):\n"
        "    subprocess.run([sys.executable, '-m', 'callboard_agents.sandbox.layers'], check=True)"
    )
    with ExitStack() as stack:
        told = started(stack, job, sys.executable, "-c", twice).communicate()[0]
    assert [json.loads(line)["cgroup"] for line in told.splitlines()] == ["", ""]
    assert [each.name for each in job.glob("*/")] == ["callboard.leaf"]


def test_a_group_that_was_given_no_memory_says_so(job: Path):
    (job / "cgroup.subtree_control").write_text("+cpu +pids", encoding="ascii")
    inner = job / "inner"
    inner.mkdir()
    assert f"memory is not delegated to {inner}" in probed(inner)


def test_what_systemd_keeps_is_left_alone(job: Path):
    unit = job
    for name in ("user@1000.service", "shell.scope"):
        divide(unit, NEEDED)
        unit /= name
        unit.mkdir()
    try:
        assert "Delegate=yes" in probed(unit)
        assert list(unit.glob("*/")) == []
        os.setxattr(unit, "user.delegate", b"1")
        assert probed(unit) == ""
        assert [each.name for each in unit.glob("*/")] == ["callboard.leaf"]
    finally:
        for each in (*unit.glob("*/"), unit):
            each.rmdir()
