"""What a hostile handler tries in its child process, layer by layer; each try must fail."""

from __future__ import annotations

import asyncio
import json
import os
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

pytestmark = pytest.mark.timeout(60)

AGENTS = Path(__file__).parent.parent / "hostile_agents.py"
MISSING = [layer for layer, reason in available().items() if reason]


class Heard:
    """What one child says, and its end."""

    def __init__(self) -> None:
        self.told_of: list[tuple[str, bytes]] = []
        self.end: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def told(self, kind: str, data: bytes) -> None:
        self.told_of.append((kind, data))

    def asked(self, number: int, kind: str, data: bytes) -> None:
        raise AssertionError((number, kind, data))

    def ended(self, ending: Ending) -> None:
        self.end.set_result(ending)


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


async def tried(what: str, payload: Any = None) -> str:
    """What came of it: the error's name, or the value that it should not have got."""
    async with opened("hostile.try") as nursery:
        ending = await run(nursery, "hostile.try", {"what": what, "with": payload})
    assert ending.failure is None, ending
    found: str = json.loads(ending.result or b"null")
    return found


def needs(*layers: str) -> None:
    if missing := set(layers) & set(MISSING):
        pytest.skip(f"this host lacks {', '.join(sorted(missing))}")


@pytest.mark.parametrize(
    ("layer", "what", "error"),
    [
        ("landlock", "read /etc/passwd", "PermissionError"),
        ("landlock", "read another process's environment", "PermissionError"),
        ("landlock", "list /tmp", "PermissionError"),
        ("landlock", "write outside", "PermissionError"),
        ("landlock", "list the cells of others", "PermissionError"),
        ("seccomp", "connect out", "PermissionError"),
        ("seccomp", "connect to a unix socket", "PermissionError"),
        ("seccomp", "fork", "BlockingIOError"),
        ("seccomp", "run a program", "BlockingIOError"),
        ("seccomp", "make a memory file", "PermissionError"),
        ("seccomp", "leave its process group", "PermissionError"),
        ("seccomp", "signal its parent", "PermissionError"),
        ("seccomp", "signal everybody", "PermissionError"),
        ("seccomp", "trace its parent", "EPERM"),
        ("seccomp", "mount", "EPERM"),
        ("seccomp", "unshare", "EPERM"),
        ("uid", "become root", "PermissionError"),
    ],
)
async def test_what_a_layer_denies(layer: str, what: str, error: str) -> None:
    needs(layer)
    assert await tried(what) == error


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
