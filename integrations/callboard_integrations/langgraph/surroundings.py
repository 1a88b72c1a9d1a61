"""In which attempt of which agent a graph runs, for the nodes in it that post."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from callboard_agents import Context

__all__ = ["current_context", "within"]

_context: ContextVar[Context | None] = ContextVar("callboard_langgraph_context", default=None)


def current_context() -> Context | None:
    """The attempt's context, or None if no agent runs this graph."""
    return _context.get()


@contextmanager
def within(context: Context) -> Iterator[None]:
    """Run the block as part of an attempt."""
    token = _context.set(context)
    try:
        yield
    finally:
        _context.reset(token)
