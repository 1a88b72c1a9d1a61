"""Agents whose child processes run several tasks, for `test_sandbox_kept.py`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from callboard import Context, agent

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
    here = Path.cwd()
    names = sorted(path.name for path in here.iterdir())
    found = [names, str(here) == os.environ["HOME"], os.environ.get("LEFT")]
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


@agent("kept.fail", isolation="process")
def fail(how: str) -> int:
    """Fail, or leave something that goes on."""
    if how == "raise":
        raise ValueError("broken")
    if how == "thread":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    if how == "cpu":
        end = time.process_time() + 1.1
        while time.process_time() < end:
            pass
    if how == "memory":
        _left.append(bytearray(40 << 20))
    if how == "exit later":
        threading.Timer(0, os._exit, (5,)).start()
    return os.getpid()


@agent("kept.fail.async", isolation="process")
async def fail_async(how: str) -> int:
    """The same of a coroutine."""
    if how == "task":
        _left.append(asyncio.get_running_loop().create_task(asyncio.sleep(60)))
    await asyncio.sleep(0)
    return os.getpid()


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
