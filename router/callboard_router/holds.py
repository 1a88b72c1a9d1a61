"""What is known of attempts that run: who has each, what ends it, and what a host may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from callboard_router.hosts import Queue

__all__ = ["Answer", "Claim", "Hold", "Loss", "Owner", "Timing", "may_have"]

Owner = tuple[str, str, str]
"""(pool, host, incarnation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. start: a dispatch must be started within it. suspect: a silent host gets no work."""

    beat: float = 1.0
    suspect: float = 3.0
    lease: float = 20.0
    start: float = 5.0


class Hold(msgspec.Struct, kw_only=True, eq=False, gc=False):
    """A running attempt. owner: who has it, once a beat or an answer has said so.

    seq: of its dispatch. box: the host whose mailbox it went to, the only one that can have it.
    start_s: how long hosts may take to begin it. unclaimed_until: when it is lost if still nobody
    lists it. clouded: dispatched before the last time that the router was cut off.
    alarm: the bucket in which its deadline is looked at next. why: of its decision.
    """

    attempt: int
    seq: int
    queue: Queue
    renewed: float
    start_s: float
    unclaimed_until: float
    box: str | None = None
    owner: Owner | None = None
    clouded: bool = False
    alarm: int = 0
    why: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that nobody will finish, and why. host: who had it, or whose mailbox it was in.

    started: a host held it, so its handler may be the cause.
    """

    task: str
    attempt: int
    reason: str
    host: str | None = None
    started: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A host asks whether it may start a dispatch that is older than its connection.

    pool: the host's; None if the question does not say.
    """

    task: str
    attempt: int
    host: str
    incarnation: str
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """go: start it. wait: ask again. Neither: drop it."""

    go: bool
    wait: bool
    why: str


def may_have(hold: Hold, owner: Owner) -> bool:
    """Whether the attempt is this owner's, or nobody's and may become it."""
    if hold.owner is not None:
        return hold.owner == owner
    return hold.queue[0] == owner[0] and hold.box in (None, owner[1])
