"""One attempt of one agent, on a board of its own in memory: what it returned, told, used and
spawned.

It is the attempt that a host would make, from the JSON of the payload to the JSON of the result,
with its timeout and its failures. Children are played by whatever the test says they return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from callboard.testing.in_memory import MemoryBoard, memory_board
from callboard.testing.journal import JournalEvent
from callboard_agents.agent import Agent, agent
from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure, Outcome, Post, Retry

__all__ = ["AttemptOutcome", "Spawned", "run_agent"]


class _EarlierAttempt(Exception):
    """What ends the attempts before the one that a test is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawned:
    """A child that the attempt posted. payload: as its agent gets it, decoded."""

    task: str
    capability: str
    payload: Any
    key: str | None
    post: Post


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """What came of an attempt. result: decoded, as a poster gets it; None if it failed.

    failure: its error as the journal has it (`type`, `message`, `field`, ...), or None.
    progress, output: what it told, in order. used: by unit. children: what it spawned, in order.
    """

    result: Any
    failure: Failure | None
    progress: list[Any]
    output: list[Any]
    used: dict[str, float]
    children: list[Spawned]

    @property
    def succeeded(self) -> bool:
        """Whether the handler returned."""
        return self.failure is None


async def run_agent(
    tested: Agent[..., Any],
    payload: Any = None,
    *,
    attempt: int = 1,
    tenant: str = "default",
    timeout: float | None = None,  # noqa: ASYNC109  the handler's, not this call's
    children: Mapping[str, Any] | None = None,
    settings: Mapping[str, object] | None = None,
) -> AttemptOutcome:
    """Run one attempt of `tested`, and return what came of it.

    attempt: which one it shall be; those before have failed elsewhere. timeout: seconds that the
    handler may run. children: by capability, what a child returns: an agent, a function of its
    payload, or the value itself; a function fails a child by raising. Raises `BadInput` for a
    payload that JSON cannot hold.
    """
    if attempt < 1:
        raise BadInput("attempt", "the first one is 1")
    played = [_played(capability, by) for capability, by in (children or {}).items()]
    async with memory_board([tested, *played], tenant=tenant, settings=settings) as board:
        earlier = _EarlierAttempt("an earlier attempt, before this test")
        board.fail_next(tested.capability, earlier, times=attempt - 1)
        handle = await board.submit(
            tested.capability,
            payload,
            timeout=timeout,
            retry=Retry(attempts=attempt, delay=0),
        )
        state = await handle.wait()
        result = await handle.result() if state == "succeeded" else None
        return _outcome(board, handle.id, result, handle.error)


def _outcome(board: MemoryBoard, task: str, result: Any, failure: Failure | None) -> AttemptOutcome:
    events = board.events
    last = [each.event for each in events if each.task == task and each.kind == "outcome"][-1]
    assert isinstance(last, Outcome)  # noqa: S101  for the type checker: by its kind
    return AttemptOutcome(
        result=result,
        failure=failure,
        progress=board.progress_of(task),
        output=board.output_of(task),
        used=dict(last.used or {}),
        children=[found for each in events if (found := _spawned(each, task)) is not None],
    )


def _spawned(each: JournalEvent, task: str) -> Spawned | None:
    post = each.event
    if not isinstance(post, Post) or post.parent is None or post.parent.task != task:
        return None
    payload = msgspec.json.decode(post.payload) if post.blob is None else None
    return Spawned(
        task=each.task, capability=each.capability, payload=payload, key=post.key, post=post
    )


def _played(capability: str, by: Any) -> Agent[..., Any]:
    if isinstance(by, Agent):
        return by
    if callable(by):

        @agent(capability)
        async def call(payload: Any) -> Any:
            return by(payload)

        return call

    @agent(capability)
    async def give() -> Any:
        return by

    return give
