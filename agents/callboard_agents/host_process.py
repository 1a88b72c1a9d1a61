"""A process that is one agent host: its loop, its signals, its end.

SIGTERM or SIGINT drains, a second one ends the process at once. A handler that neither ends nor
lets itself be cancelled cannot hold the process up for longer than the drain and a little.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

from callboard_agents.agent import Agent
from callboard_agents.host import Host
from callboard_agents.lifeline import Lifeline
from callboard_agents.loops import loop_factory
from callboard_agents.options import HostOptions
from callboard_broker.collecting import collect_rarely

__all__ = ["run_host"]

_SPARE_SECONDS = 15.0  # beyond the drain: to stop handlers, store outcomes, end lifespans
_AT_ONCE = 130
_STUCK = 1
_LOG = logging.getLogger("callboard.host")


def run_host(
    agents: Sequence[Agent[..., Any]],
    options: HostOptions,
    *,
    places: Sequence[str] = (),
    ready_fd: int | None = None,
    life_fd: int | None = None,
) -> None:
    """Run a host of `agents` until a signal drains it; call it in the main thread.

    places: where the agents come from, for children to load them. ready_fd: of a pipe; a byte is
    written to it when the host works, and it is closed. life_fd: of the pipe to a supervisor, see
    `Lifeline`.
    Raises `BadInput`, `BoardUnreachable`, `StartFailed`. Ends the process if the drain cannot come
    to an end.
    """

    async def work() -> None:
        lifeline = None if life_fd is None else Lifeline(life_fd)
        host = Host(agents, options, places=places, lifeline=lifeline)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _drain, host)
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell(host, ready_fd))
            await host.run()
            telling.cancel()

    collect_rarely()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            runner.run(work())
        except BaseExceptionGroup as found:
            raise _only(found) from None


def _only(found: BaseException) -> BaseException:
    """What a task group has wrapped, if it was one error."""
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found


async def _tell(host: Host, ready_fd: int | None) -> None:
    if ready_fd is None:
        return
    await host.ready()
    with os.fdopen(ready_fd, "wb") as pipe:
        pipe.write(b"\n")


def _drain(host: Host) -> None:
    if host.draining:
        _exit(_AT_ONCE)
    _LOG.info("draining; a second signal ends the process at once")
    host.drain()
    last = threading.Timer(host.options.drain_seconds + _SPARE_SECONDS, _exit, (_STUCK,))
    last.daemon = True
    last.start()


def _exit(code: int) -> None:
    logging.shutdown()
    os._exit(code)
