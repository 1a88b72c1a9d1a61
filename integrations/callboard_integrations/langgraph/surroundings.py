"""In which attempt of which agent a graph runs, for the nodes in it that post.

What a node was asked by a graph that it had posted is kept with the checkpoints: the answer comes
with another task, whose children are others, so that the first question could not be found again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import msgspec

from callboard_agents import Context
from callboard_integrations.langgraph.saver import JetStreamSaver

__all__ = ["Surroundings", "current_surroundings", "within"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """context: the attempt's. saver, thread: where its checkpoints are."""

    context: Context
    saver: JetStreamSaver
    thread: str

    async def keep_question(self, place: str, asked: Any) -> None:
        """Keep what the node at `place` was asked."""
        await self.saver.akeep_question(self.thread, place, msgspec.json.encode(asked))

    async def question(self, place: str) -> Any:
        """What the node at `place` was asked, as its agent's result; None if it was not."""
        data = await self.saver.aget_question(self.thread, place)
        return None if data is None else msgspec.json.decode(data)


_around: ContextVar[Surroundings | None] = ContextVar("callboard_langgraph_around", default=None)


def current_surroundings() -> Surroundings | None:
    """Those of the attempt, or None if no agent runs this graph."""
    return _around.get()


@contextmanager
def within(around: Surroundings) -> Iterator[None]:
    """Run the block as part of an attempt."""
    token = _around.set(around)
    try:
        yield
    finally:
        _around.reset(token)
