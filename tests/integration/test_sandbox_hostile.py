"""What a hostile handler tries in its child process, layer by layer; each try must fail."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from callboard_agents.sandbox import (
    LAYERS,
    CellPlan,
    Ending,
    Grant,
    Nursery,
    TaskHeader,
    available,
    open_nursery,
)
from tests.heard import Heard

pytestmark = pytest.mark.timeout(60)

AGENTS = Path(__file__).parent.parent / "hostile_agents.py"
MISSING = [layer for layer, reason in available().items() if reason]


@asynccontextmanager
async def opened(*capabilities: str, **grant: Any) -> AsyncIterator[Nursery]:
    plans = [
        CellPlan(capability=each, grant=Grant(**grant), slots=2, spares=1) for each in capabilities
    ]
    async with open_nursery(places=[str(AGENTS)], plans=plans) as nursery:
        yield nursery


async def run(nursery: Nursery, capability: str, payload: Any = None) -> Ending:
    child = await nursery.wait(capability)
    heard = Heard()
    child.start(
        TaskHeader("1", 1, "mallory", capability, 30.0), json.dumps(payload).encode(), heard
    )
    async with asyncio.timeout(20):
        return await heard.end


async def tried(what: str) -> str:
    """What came of it: the error's name, or the value that it should not have got."""
    async with opened("hostile.try") as nursery:
        return await one_try(nursery, what)


async def one_try(nursery: Nursery, what: str) -> str:
    ending = await run(nursery, "hostile.try", {"what": what, "host": os.getpid()})
    assert ending.failure is None, (what, ending)
    found: str = json.loads(ending.result or b"null")
    return found


def needs(*layers: str) -> None:
    if missing := set(layers) & set(MISSING):
        pytest.skip(f"this host lacks {', '.join(sorted(missing))}")


DENIED = {
    "landlock": (
        "read /etc/passwd",
        "read another process's environment",
        "read the host's environment",
        "read the zygote's memory",
        "look through the host's root",
        "list /tmp",
        "list shared memory",
        "write shared memory",
        "write outside",
        "change its own code",
        "list the cells of others",
        "climb out by a descriptor",
        "follow a symbolic link outside",
        "link a file of others",
        "be spared when memory runs out",
        "leave its control group",
    ),
    "seccomp": (
        "connect out",
        "send a datagram",
        "open a raw socket",
        "open a packet socket",
        "talk to the kernel by netlink",
        "connect to a unix socket",
        "connect by a pair of datagram sockets",
        "fork",
        "run a program",
        "make a memory file",
        "make a memory file by a bare call",
        "leave its process group",
        "signal its parent",
        "signal its host",
        "signal its host by a descriptor",
        "queue a signal",
        "signal everybody",
        "trace its parent",
        "read memory of its parent",
        "write memory of its parent",
        "take a descriptor of its parent",
        "mount",
        "unshare",
        "enter another namespace",
        "change its root",
        "make a device",
        "read keys of the kernel",
        "go round the filter by io_uring",
        "load a program into the kernel",
        "make a shared segment",
        "handle page faults itself",
        "count events of others",
        "watch the files of others",
        "outlive its parent",
        "adopt orphans",
        "type into a terminal",
    ),
    "uid": (
        "become root",
        "gain by a set-user-id bit",
        "leave its control group",
        "loosen its control group",
    ),
    "rlimits": ("make a huge sparse file", "raise its limits", "be nicer to itself"),
}
"""What each layer denies."""
REFUSALS = {"PermissionError", "BlockingIOError", "EPERM", "EAGAIN", "ValueError", "OSError"}
BARE = (
    "queue a signal",
    "memory of its parent",
    "bare call",
    "take a descriptor",
    "keys of the kernel",
    "io_uring",
    "load a program",
    "page faults",
    "count events",
)
"""Tries by number, of x86_64."""


@pytest.mark.parametrize("layer", DENIED)
async def test_what_a_layer_denies(layer: str) -> None:
    needs(layer)
    async with opened("hostile.try") as nursery:
        found = {
            what: await one_try(nursery, what)
            for what in DENIED[layer]
            if platform.machine() == "x86_64" or not any(words in what for words in BARE)
        }
    assert {what: came for what, came in found.items() if came not in REFUSALS} == {}


async def test_neither_environment_nor_descriptors_of_the_host_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    environment, descriptors = json.loads(await tried("tell environment and descriptors"))
    assert set(environment) == {"HOME", "LANG", "PATH", "TMPDIR"}
    assert descriptors == [0, 1, 2, 3], "the standard ones, of /dev/null, and its channel"


async def test_no_task_sees_the_globals_of_another() -> None:
    async with opened("hostile.remember") as nursery:
        counts = [json.loads((await run(nursery, "hostile.remember")).result or b"") for _ in "123"]
    assert counts == [1, 1, 1]


async def test_a_fork_bomb_stays_within_its_processes_and_nothing_of_it_is_left() -> None:
    needs("uid")
    async with opened("hostile.bomb", processes=8) as nursery:
        ending = await run(nursery, "hostile.bomb")
        assert ending.failure is not None
        assert ending.failure.type == "ProcessesExceeded"
        if "cgroup" not in MISSING:
            said = "it had 8, of the 8 processes and threads that are granted"
            assert ending.failure.message == said
        again = await run(nursery, "hostile.bomb")
        assert again.failure is not None, "its cell was emptied: the next one gets as far"
        assert again.failure.type == "ProcessesExceeded"


async def test_a_child_that_says_nonsense_is_ended() -> None:
    async with opened("hostile.nonsense", output_mb=1) as nursery:
        ending = await run(nursery, "hostile.nonsense")
        assert ending.failure is not None
        assert ending.failure.type == "Crashed"


async def test_files_beyond_its_disk_cannot_be_written_together() -> None:
    needs("disk")
    async with opened("hostile.files", disk_mb=4) as nursery:
        ending = await run(nursery, "hostile.files")
        assert ending.failure is not None
        assert ending.failure.type == "DiskExceeded"
        assert ending.failure.message == "4.0 MiB in its folder, of 4 that are granted"


async def test_modes_and_attributes_of_others_files_stay(tmp_path: Path) -> None:
    """Landlock says nothing of them: it is the uid that protects them, or else seccomp."""
    if {"seccomp", "uid"} <= set(MISSING):
        pytest.skip("this host has neither seccomp nor uids for children")
    file = tmp_path / "mine"
    file.touch(0o600)
    before = file.stat()
    async with opened("hostile.modes") as nursery:
        assert (await run(nursery, "hostile.modes", str(file))).failure is None
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert os.listxattr(file) == []


async def test_what_is_hard_to_remove_is_not_there_for_the_next_task() -> None:
    async with opened("hostile.litter") as nursery:
        for depth in (1200, 1, 1, 1):  # deeper than a path is long; more tasks than cells
            ending = await run(nursery, "hostile.litter", depth)
            assert ending.failure is None, ending
            assert json.loads(ending.result or b"") == []


async def test_very_many_files_hold_up_only_their_own_cell() -> None:
    async with opened("hostile.many.files", "hostile.remember") as nursery:
        ending = await run(nursery, "hostile.many.files", 20_000)
        assert json.loads(ending.result or b"") == 20_000
        assert json.loads((await run(nursery, "hostile.remember")).result or b"") == 1


async def test_a_process_that_was_detached_twice_does_not_outlive_its_task() -> None:
    async with opened("hostile.daemon", processes=8) as nursery:
        pids = [json.loads((await run(nursery, "hostile.daemon")).result or b"") for _ in "123"]
        for pidfd in filter(None, map(_pidfd, pids)):
            await asyncio.to_thread(_wait_gone, pidfd)


async def test_a_child_that_ends_in_the_moment_it_is_ended_takes_nobody_along() -> None:
    async with opened("hostile.sleep") as nursery:
        child = await nursery.wait("hostile.sleep")
        pidfd = os.pidfd_open(child.pid)
        keeper = psutil.Process(child.pid).parent()
        assert keeper is not None
        keeper.suspend()  # it will hear of both at once
        async with asyncio.timeout(20):
            while keeper.status() != psutil.STATUS_STOPPED or not nursery.has_plenty(0):  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.kill()
        await asyncio.to_thread(_wait_gone, pidfd)
        keeper.resume()
        for _ in range(3):  # every cell has a child again, and the zygote lives
            async with asyncio.timeout(20):
                await nursery.wait("hostile.sleep")


async def test_threads_without_end_are_a_failure_of_their_own_task() -> None:
    needs("uid")
    async with opened("hostile.threads") as nursery:
        ending = await run(nursery, "hostile.threads")
        assert ending.failure is not None
        assert ending.failure.type in ("ProcessesExceeded", "MemoryExceeded")
        if ending.failure.type == "ProcessesExceeded" and "cgroup" not in MISSING:
            found = re.fullmatch(r"it had (\d+), of the 64 threads .*", ending.failure.message)
            assert found is not None, ending.failure.message
            assert 60 <= int(found[1]) <= 64


async def test_a_child_that_speaks_as_a_host_is_ended() -> None:
    async with opened("hostile.forged") as nursery:
        ending = await run(nursery, "hostile.forged")
        assert ending.failure is not None
        assert ending.failure.type == "Crashed"


async def test_only_the_first_result_counts() -> None:
    async with opened("hostile.twice") as nursery:
        assert (await run(nursery, "hostile.twice")).result == b'"one"'


@pytest.mark.parametrize("spares", [0, 4])
async def test_a_child_does_not_outlive_its_result(spares: int) -> None:
    plan = CellPlan(capability="hostile.twice", slots=2, spares=spares)
    async with open_nursery(places=[str(AGENTS)], plans=[plan]) as nursery:
        child = await nursery.wait("hostile.twice")
        process = os.pidfd_open(child.pid)
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(process, gone.set)
        heard = Heard()
        child.start(TaskHeader("1", 1, "mallory", "hostile.twice", 30.0), b"null", heard)
        async with asyncio.timeout(10):
            assert (await heard.end).result == b'"one"'
            await gone.wait()
        asyncio.get_running_loop().remove_reader(process)
        os.close(process)


async def test_mask_folder_and_environment_are_as_new_for_each_task() -> None:
    async with opened("hostile.mask") as nursery:
        for _ in "1234":
            ending = await run(nursery, "hostile.mask")
            assert json.loads(ending.result or b"") == [0o077, 4, 0]


async def test_a_child_that_hears_no_signal_is_killed_at_once() -> None:
    async with opened("hostile.deaf") as nursery:
        child = await nursery.wait("hostile.deaf")
        heard = Heard()
        child.start(TaskHeader("1", 1, "mallory", "hostile.deaf", 30.0), b"null", heard)
        child.cancel()
        child.kill()
        async with asyncio.timeout(10):
            ending = await heard.end
        assert ending.failure is not None
        assert ending.failure.type == "Crashed"


async def test_output_without_end_is_cut() -> None:
    async with opened("hostile.flood") as nursery:
        child = await nursery.wait("hostile.flood")
        heard = Heard()
        child.start(TaskHeader("1", 1, "mallory", "hostile.flood", 30.0), b"null", heard)
        async with asyncio.timeout(20):
            assert (await heard.end).result == b'"done"'
        *lines, last = [data for kind, data in heard.told_of if kind == "log"]
        assert len(lines) == 20_000
        assert max(map(len, lines)) < 8300
        assert json.loads(last)["dropped"] >= 5000


async def test_memory_beyond_the_grant_is_a_failure_and_the_next_task_runs() -> None:
    async with opened("hostile.hoard", "hostile.remember", memory_mb=64) as nursery:
        for _ in "123":
            ending = await run(nursery, "hostile.hoard")
            assert ending.failure is not None
            assert ending.failure.type == "MemoryExceeded"
        assert json.loads((await run(nursery, "hostile.remember")).result or b"") == 1


async def test_nobody_reads_the_folder_of_another_cell() -> None:
    """Without Landlock it is the uid that denies this, and without both nothing does."""
    if {"landlock", "uid"} <= set(MISSING):
        pytest.skip("this host has neither Landlock nor uids for children")
    async with opened("hostile.sleep", "hostile.peek") as nursery:
        child = await nursery.wait("hostile.sleep")
        other = os.readlink(f"/proc/{child.pid}/cwd")  # noqa: PTH115  not awaited: it is in memory
        assert other.startswith(nursery.base)
        ending = await run(nursery, "hostile.peek", other)
        assert ending.result == b'"PermissionError"'


async def test_a_coroutine_in_a_child_may_wait_for_threads_and_signals() -> None:
    async with opened("hostile.patient") as nursery:
        ending = await run(nursery, "hostile.patient")
    assert ending.failure is None
    assert json.loads(ending.result or b"") == ["pooled", "thread", "signal"]


async def test_a_child_and_not_its_keeper_is_the_first_to_go_where_memory_runs_out() -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    async with opened("hostile.sleep") as nursery:
        child = await nursery.wait("hostile.sleep")
        keeper = psutil.Process(child.pid).ppid()
        assert score(child.pid) == 1000
        assert score(keeper) == score(os.getpid())
        child.kill()


async def test_the_death_of_the_zygote_ends_every_child() -> None:
    async with opened("hostile.sleep") as nursery:
        child = await nursery.wait("hostile.sleep")
        heard = Heard()
        child.start(TaskHeader("1", 1, "mallory", "hostile.sleep", 30.0), b"null", heard)
        os.kill(psutil.Process(child.pid).ppid(), signal.SIGKILL)
        ending = await heard.end
        assert ending.failure is not None
        assert ending.failure.type == "Crashed"
        await nursery.over.wait()
        with pytest.raises(ConnectionResetError):
            nursery.take("hostile.sleep")
        pidfd = _pidfd(child.pid)
        if pidfd is not None:
            await asyncio.to_thread(_wait_gone, pidfd)


def test_a_killed_host_leaves_no_process_and_its_folders_are_swept(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(_HOST.format(agents=str(AGENTS)), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as host:
        assert host.stdout is not None
        child, base = json.loads(host.stdout.readline())
        pidfd = _pidfd(child)
        host.kill()
    if pidfd is not None:
        _wait_gone(pidfd)
    assert Path(base).exists()
    asyncio.run(_open_and_close())
    assert not Path(base).exists()


async def _open_and_close() -> None:
    async with opened("hostile.sleep"):
        pass


_HOST = """
import asyncio, json, sys
from callboard_agents.sandbox import CellPlan, open_nursery

async def main():
    plans = [CellPlan(capability="hostile.sleep", slots=1, spares=1)]
    async with open_nursery(places=["{agents}"], plans=plans) as nursery:
        child = await nursery.wait("hostile.sleep")
        print(json.dumps([child.pid, nursery.base]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _wait_gone(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 10)[0], "it lives on"
    os.close(pidfd)


def test_every_layer_has_a_name_and_a_reason() -> None:
    assert list(available()) == list(LAYERS)


def test_a_plain_user_has_what_needs_no_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("it is a plain user that runs the tests")
    code = (
        "import os, json; from callboard_agents.sandbox.layers import probe;"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534);"
        "print(json.dumps(probe()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    found = json.loads(done.stdout)
    assert found["rlimits"] == found["no_new_privs"] == found["seccomp"] == ""
    assert found["landlock"] == available()["landlock"]
    assert all(found[layer] for layer in ("uid", "namespaces", "disk"))
