"""A command that meets a limit: the failure names it, whatever code the program ends with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard_agents import Limits
from tests.heard import Heard
from tests.one_command import MISSING, begin, failed, measured, needs, opened, run
from tests.open_folders import PYTHON, open_folder

pytestmark = pytest.mark.timeout(60)

MANY = "for n in 1 2 3 4 5 6 7 8 9; do sleep 20 & done; wait"
SPIN = "while :; do :; done"


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as found:
        yield found


async def sh(text: str, folder: Path, **limits: float) -> tuple[str, str]:
    """The failure of a shell that runs `text`."""
    return failed(await run("sh", "-c", text, folder=folder, limits=Limits(**limits)))


async def test_a_process_too_many_is_a_failure_with_the_count_and_its_last_words(folder: Path):
    needs("uid")
    kind, message = await sh(MANY, folder, processes=4)
    said = r"sh exited with 2: .*Cannot fork"
    if "cgroup" in MISSING:  # nobody counts
        assert (kind, bool(re.fullmatch(said, message))) == ("CommandFailed", True)
    else:
        assert kind == "ProcessesExceeded"
        words = r"it had (\d+), of the 4 processes and threads that are granted; "
        assert measured(words + said, message) == 4


async def test_a_command_that_may_start_no_process_starts_none(folder: Path):
    needs("seccomp")
    kind, message = await sh("ls | cat", folder, processes=1)
    if {"cgroup", "uid"} & set(MISSING):  # a filter of system calls refuses, and counts nothing
        assert (kind, "fork" in message) == ("CommandFailed", True)
    else:
        assert kind == "ProcessesExceeded"
        assert message.startswith("it had 1, of the 1 processes and threads that are granted; sh ")


async def test_a_limit_that_was_coped_with_is_no_failure_of_this_or_a_later_command(folder: Path):
    needs("cgroup", "uid", "disk")
    cope = f"({MANY}) 2>/dev/null || head -c 9000000 /dev/zero > f 2>/dev/null || rm f; echo coped"
    text = f'read -r code; if [ "$code" = 0 ]; then {cope}; fi; exit "$code"'
    limits = Limits(processes=4, disk_mb=2)
    async with opened("sh", "-c", text, folder=folder, limits=limits, output="text") as nursery:
        for code in (0, 0, 0, 3, 3):  # in two cells
            heard = Heard()
            await begin(nursery, heard, code)
            async with asyncio.timeout(20):
                ending = await heard.end
            if code == 0:
                assert ending.result == b'"coped\\n"', ending
            else:
                assert failed(ending) == ("CommandFailed", "sh exited with 3")


async def test_a_file_that_is_too_long_is_a_failure_whatever_the_program_exits_with(folder: Path):
    for fill in (
        "exec head -c 9000000 /dev/zero > f",
        "head -c 9000000 /dev/zero > f; exit 5",
        f"'{PYTHON}' -c 'open(\"f\", \"wb\").write(bytes(9000000))'; exit 1",
    ):
        kind, message = await sh(fill, folder, disk_mb=2)
        assert kind == "DiskExceeded", (fill, message)
        figure, _, said = message.partition(" MiB in ")
        assert float(figure) == 2
        what, _, said = said.partition(", of 2 that are granted; sh ")
        assert what in ("its folder", "one file")
        assert said.startswith(("exited with", "died of SIGXFSZ")), said


async def test_a_folder_that_is_full_is_a_failure_with_what_is_in_it(folder: Path):
    needs("disk")
    fill = "set -e; for n in 1 2 3; do dd if=/dev/zero of=$n bs=100k count=10; done"
    kind, message = await sh(fill, folder, disk_mb=2)
    assert kind == "DiskExceeded"
    words = r"([\d.]+) MiB in its folder, of 2 that are granted; sh exited with 1: .*"
    assert measured(words, message) == 2
    emptied = "head -c 9000000 /dev/zero > f; rm f; exit 5"
    kind, message = await sh(emptied, folder, disk_mb=2)
    assert (kind, message.partition(":")[0]) == ("CommandFailed", "sh exited with 5")


async def test_seconds_of_cpu_too_many_are_a_failure_also_of_a_process_that_it_started(
    folder: Path,
):
    for spin, said in (
        (SPIN, "sh died of SIGXCPU"),
        (f"sh -c '{SPIN}'; exit $?", "sh exited with 152.*"),
    ):
        kind, message = await sh(spin, folder, cpu_seconds=1)
        assert kind == "CpuExceeded"
        words = r"([\d.]+) s of CPU, of 1 that are granted; "
        assert 0.5 <= measured(words + said, message) < 3
    assert await sh("exit 152", folder, cpu_seconds=1) == ("CommandFailed", "sh exited with 152")


async def test_a_process_that_it_starts_gets_no_more_memory_than_it_may(folder: Path):
    greedy = f"'{PYTHON}' -c 'bytearray(10**9)'; exit $?"
    ending = await run("sh", "-c", greedy, folder=folder, memory_mb=60)
    kind, message = failed(ending)
    if "cgroup" in MISSING:
        assert (kind, message) == ("CommandFailed", "sh exited with 1: MemoryError")
    else:
        assert kind == "MemoryExceeded"
        words = r"the kernel ended a process of it for want of memory, at (\d+) MiB, of 60 granted "
        assert measured(words + "to all; sh exited with 137.*", message) > 30
