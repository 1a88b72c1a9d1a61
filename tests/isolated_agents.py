"""Agents in child processes, for tests of a whole board. Some of them are up to no good."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callboard import Context, GiveUp, Limits, agent


@dataclass
class Sum:
    """A payload with a type."""

    a: int
    b: int


@agent("iso.sum", isolation="process")
def add(payload: Sum) -> int:
    return payload.a + payload.b


@agent("iso.where")
async def where(_payload: object) -> int:
    """Inline, unless its tenant is to be kept apart."""
    return os.getpid()


@agent("iso.talk", isolation="process")
async def talk(payload: dict[str, Any], ctx: Context) -> Any:
    ctx.progress({"at": 1})
    ctx.settle(tokens=7)
    child = await ctx.spawn("iso.sum", payload["sum"])
    return await child.result()


@agent("iso.plain.talk", isolation="process")
def plain_talk(payload: dict[str, Any], ctx: Context) -> Any:
    return f"no loop: {ctx.remaining_seconds > 0} {payload['x']}"


_run_here: list[int] = []


@agent("iso.kept", isolation="process", limits=Limits(tasks_per_child=50))
def kept(number: int) -> list[int]:
    """What this process has been given so far."""
    _run_here.append(number)
    return _run_here


@agent("iso.wait", isolation="process")
async def wait(_payload: object) -> None:
    await asyncio.Event().wait()


@agent("iso.deaf", isolation="process", timeout=0.5)
def deaf(_payload: object) -> None:
    while True:
        try:
            time.sleep(10)
        except BaseException:  # noqa: BLE001, S112  it listens to nobody
            continue


@agent("iso.broken", isolation="process")
def broken(_payload: object) -> None:
    raise GiveUp("for good")


@agent("iso.exit", isolation="process")
def leave(code: int) -> None:
    os._exit(code)


@agent("iso.memory", isolation="process", memory_mb=64)
def memory(_payload: object) -> int:
    kept = [bytearray(1 << 20) for _ in range(500)]
    return len(kept)


@agent("iso.spin", isolation="process")
def spin(_payload: object) -> None:
    while True:
        pass


@agent("iso.work", isolation="process")
def work(payload: dict[str, float]) -> int:
    """Use so much memory, and so much CPU."""
    kept = b"x" * (int(payload["mb"]) << 20)
    while time.process_time() < payload["cpu_s"]:
        pass
    return len(kept) >> 20


@agent("iso.disk", isolation="process")
def disk(megabytes: int) -> int:
    with Path("much").open("wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(megabytes))
    return megabytes


@agent("iso.fork", isolation="process")
def fork(_payload: object) -> None:
    os.fork()


@agent("iso.output", isolation="process")
def output(megabytes: int) -> str:
    return "y" * (megabytes << 20)


@agent("iso.files", isolation="process")
def files(_payload: object) -> int:
    kept = [Path("/dev/null").open("rb") for _ in range(1000)]  # noqa: SIM115  that is the point
    return len(kept)


@agent("iso.left", isolation="process")
def left(_payload: object) -> list[str]:
    """What an earlier task has left in the folder; and leave something."""
    found = [path.name for path in Path().iterdir()]
    Path("left").write_text("behind", encoding="ascii")
    Path("folder").mkdir()
    Path("folder/file").write_text("behind", encoding="ascii")
    return found


@agent("iso.calm")
async def calm(_payload: object) -> None:
    """A well-behaved neighbour."""
