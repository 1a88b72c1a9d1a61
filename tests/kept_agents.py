"""Agents whose child processes run several tasks, for `test_sandbox_kept.py`."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callboard import Context, agent
from callboard_agents.sandbox.channel import RESULT, frame

_seen: list[str] = []
_left: list[Any] = []


@agent("kept.remember", isolation="process")
def remember(word: str) -> list[Any]:
    """What the tasks before have said, and which process this is."""
    _seen.append(word)
    return [_seen, os.getpid()]


@agent("kept.leave", isolation="process")
def leave(_payload: object) -> list[Any]:
    """What is found, before as much as possible is left behind for the next."""
    names = sorted(each.name for each in Path().iterdir())
    found = [names, str(Path.cwd()) == os.environ["HOME"], os.environ.get("LEFT")]
    mask = os.umask(0)
    Path("folder/below").mkdir(parents=True)
    Path("folder/below/file").write_text("secret")
    Path("folder").chmod(0)
    os.chdir("/")
    os.environ["LEFT"] = "1"
    os.environ.pop("LANG")
    print("no end of the line", end="")
    sys.stdout = sys.stderr = None
    return [*found, oct(mask), sorted(os.environ), os.getpid()]


def _work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _work_in_a_thread() -> None:
    worker = threading.Thread(target=_work, args=(1.1,))
    worker.start()
    worker.join()


def _open_everything() -> None:
    with contextlib.suppress(OSError):
        while True:
            _left.append(os.dup(1))


def _forge() -> None:
    os.write(3, frame(RESULT, 1, b'"forged"'))
    time.sleep(0.1)  # its own result comes when nobody waits for it


_LEAVE: dict[str, Callable[[], object]] = {
    "thread": threading.Thread(target=time.sleep, args=(60,), daemon=True).start,
    "cpu": lambda: _work(1.1),
    "cpu in a thread": _work_in_a_thread,
    "memory": lambda: _left.append(bytearray(40 << 20)),
    "mapped": lambda: _left.append(mmap.mmap(-1, 40 << 20)),
    "descriptors": _open_everything,
    "files": lambda: [Path(f"file{number}").touch() for number in range(100)],
    "limit": lambda: resource.setrlimit(resource.RLIMIT_CPU, (2, 2)),
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 3600),
    "forge": _forge,
    "exit later": lambda: threading.Timer(0, os._exit, (5,)).start(),
}


@agent("kept.fail", isolation="process")
def fail(how: str) -> int:
    """Fail, or leave something that goes on."""
    if how == "raise":
        raise ValueError("broken")
    if how:
        _LEAVE[how]()
    return os.getpid()


@agent("kept.fail.async", isolation="process")
async def fail_async(how: str) -> int:
    """The same of a coroutine."""
    if how == "task":
        _left.append(asyncio.get_running_loop().create_task(asyncio.sleep(60)))
    if how == "timer":
        asyncio.get_running_loop().call_later(3600, os.getpid)
    if how == "reader":
        asyncio.get_running_loop().add_reader(os.eventfd(0), os.getpid)
    await asyncio.sleep(0)
    if how == "callback":
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, print)
    return os.getpid()


@agent("kept.say", isolation="process")
def say(megabytes: int) -> str:
    """A long result."""
    return "x" * (megabytes << 20)


@agent("kept.spend", isolation="process")
def spend(megabytes: int) -> int:
    """Use memory, and CPU, and let go of it."""
    filled = bytearray(megabytes << 20)
    end = time.process_time() + len(filled) / (1 << 20) * 0.005
    while time.process_time() < end:
        pass
    return os.getpid()


@agent("kept.wait", isolation="process")
async def wait(seconds: float, ctx: Context) -> list[Any]:
    """Sleep; whether it was told to stop."""
    await asyncio.sleep(seconds)
    return [ctx.cancelled, os.getpid()]
