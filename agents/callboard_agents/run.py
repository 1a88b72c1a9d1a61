"""One attempt that runs on a host: its parts, and the failure that being stopped is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from msgspec import Raw

from callboard_agents.attempts import Life
from callboard_agents.context import Context
from callboard_agents.failures import cancelled, heartbeat_missed, timed_out
from callboard_agents.lane import Lane
from callboard_broker.wire import Dispatch, Failure, Usage

if TYPE_CHECKING:
    from callboard_agents.executors import Executor, Side

__all__ = ["Run", "Stop"]

Stop = Literal["timeout", "heartbeat", "cancel", "lease", "drain"]


class Run:
    """stop: why it was told to end, and reason: in the words of who asked for it.

    timer: of its timeout, then of the patience with a handler that was told to end. watch: of its
    heartbeat. ended: its outcome is decided. context: of a handler in this process. side: what it
    says and wants. deadline: when it is stopped, of `time.monotonic()`. begun: its handler runs, or
    did. restored: the checkpoint
    that it begins with, as JSON. checkpoints, outputs: how many it has given so far. layers:
    of a child process, once it has ended. usage: of that, or of a thread.
    """

    __slots__ = (
        "begun",
        "checkpoints",
        "context",
        "deadline",
        "dispatch",
        "ended",
        "executor",
        "lane",
        "layers",
        "life",
        "outputs",
        "reason",
        "restored",
        "side",
        "started_at",
        "stop",
        "task",
        "tenant",
        "timeout",
        "timer",
        "usage",
        "watch",
    )

    executor: Executor

    def __init__(self, lane: Lane, dispatch: Dispatch, tenant: str, life: Life) -> None:
        self.lane = lane
        self.dispatch = dispatch
        self.tenant = tenant
        self.life = life
        self.context: Context | None = None
        self.side: Side | None = None
        self.started_at = 0
        self.deadline = 0.0
        self.restored: bytes | Raw | None = None
        self.checkpoints = 0
        self.outputs = 0
        self.timeout = dispatch.timeout or lane.timeout
        self.timer: asyncio.TimerHandle | None = None
        self.watch: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.stop: Stop | None = None
        self.reason = ""
        self.begun = False
        self.ended = False
        self.layers: tuple[str, ...] = ()
        self.usage: Usage | None = None

    def failure(self, now: float) -> Failure:
        """The failure of an attempt that was told to end, whatever its handler made of that.

        now: of the same clock as `deadline`.
        """
        if self.stop == "cancel":
            return cancelled(self.reason)
        if self.stop == "heartbeat":
            command = self.lane.agent.command is not None
            return heartbeat_missed(self.dispatch.heartbeat or 0.0, command=command)
        ran = now - (self.deadline - self.timeout)
        return timed_out(ran, self.timeout, begun=self.begun)
