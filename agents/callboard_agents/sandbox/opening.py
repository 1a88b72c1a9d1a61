"""How a nursery is opened: its zygote is started apart from the host, and told what is wanted.

The zygote inherits one socket and an environment in which there is no secret. What a host that was
killed has left is swept by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from callboard_agents.lifespans import StartFailed
from callboard_agents.sandbox.grant import CellPlan
from callboard_agents.sandbox.nursery import Nursery
from callboard_broker.errors import BadInput
from callboard_broker.wire import encode

__all__ = ["open_nursery"]

_READY_SECONDS = 60.0  # as long as the agents' modules may take
_END_SECONDS = 5.0
_MESSAGE = 64 * 1024
_PREFIX = "callboard-cells-"
_ENTRANCE = str(Path(__file__).with_name("entrance.py"))


@asynccontextmanager
async def open_nursery(
    *, places: Sequence[str], plans: Sequence[CellPlan], require: frozenset[str] = frozenset()
) -> AsyncIterator[Nursery]:
    """Start the zygote, which loads `places`; children of `plans` are made ready at once.

    require: layers without which no child may run a task. Raises `BadInput` as `load` does, and
    where one of `require` cannot be had; `StartFailed` if a lifespan of the agents fails.
    """
    _sweep()
    base = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    os.chmod(base, 0o711)  # noqa: S103  children of other uids pass through to their own folder
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    zygote = _start(theirs, network=any(plan.network for plan in plans))
    theirs.close()
    try:
        orders = {"places": list(places), "plans": list(plans), "base": base, "path": sys.path}
        told = await _introduce(ours, encode(orders))
        missing = sorted(require - set(told["ready"]))
        if missing:
            raise BadInput("isolation.require", f"children cannot have {', '.join(missing)}")
        nursery = Nursery(ours, plans, told)
        nursery.base, nursery.zygote = base, zygote.pid
        try:
            yield nursery
        finally:
            nursery.close()
    finally:
        ours.close()
        await asyncio.to_thread(_end, zygote)
        shutil.rmtree(base, ignore_errors=True)


def _start(theirs: socket.socket, *, network: bool) -> subprocess.Popen[bytes]:
    """From the main thread, or the zygote ends with the thread that called."""
    return subprocess.Popen(
        [sys.executable, "-P", _ENTRANCE, str(theirs.fileno()), "network" if network else "no"],
        env=_environment(),
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _introduce(control: socket.socket, orders: bytes) -> dict[str, Any]:
    """Tell the zygote what is wanted; return what it offers."""
    control.send(orders)
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def came() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(control, came)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await readable
    except TimeoutError:
        raise BadInput("agents", f"not loaded within {_READY_SECONDS:g} s") from None
    finally:
        loop.remove_reader(control)
    said = control.recv(_MESSAGE)
    if not said:
        raise BadInput("agents", "the process that loads them for children died; see its output")
    answer: dict[str, Any] = json.loads(said)
    if "refused" in answer:
        raise BadInput(answer["field"], answer["refused"].removeprefix(f"{answer['field']}: "))
    if "failed" in answer:
        raise StartFailed(answer["span"], answer["failed"])
    return answer


def _environment() -> dict[str, str]:
    """What the zygote gets: how to find Python's modules, and nothing that could be a secret."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return {"LANG": "C.UTF-8", **kept}


def _end(zygote: subprocess.Popen[bytes]) -> None:
    try:
        zygote.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        zygote.kill()
        zygote.wait()


def _sweep() -> None:
    """Remove what hosts that were killed have left."""
    folder = tempfile.gettempdir()
    for name in os.listdir(folder):
        if not name.startswith(_PREFIX):
            continue
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(OSError, RecursionError):  # then it is somebody's to look at
                shutil.rmtree(os.path.join(folder, name))
