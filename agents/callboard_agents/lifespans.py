"""What is set up before a process takes work, and taken down when it has done the last of it.

A module's lifespans and its agents' classes are entered in the process that runs the handlers: the
host, or the one that children are forked from, so that a model is loaded once and shared. They are
left in reverse order, within a bounded time.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import Any, cast

from callboard_agents.agent import Agent
from callboard_agents.loading import shown_module
from callboard_broker.errors import BadInput, CallboardError

__all__ = ["Lifespan", "Span", "StartFailed", "lifespan", "lived", "refuse_async", "spans_of"]

_LEAVE_SECONDS = 5.0  # for all of them
_LOG = logging.getLogger("callboard.host")

Entered = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]


class StartFailed(CallboardError, RuntimeError):
    """What agents need before they work could not be set up. `.span` names it."""

    def __init__(self, span: str, reason: str) -> None:
        super().__init__(f"{span} does not start: {reason}")
        self.span = span
        self.reason = reason

    @classmethod
    def of(cls, span: Span, error: BaseException) -> StartFailed:
        """Because of this error."""
        return cls(span.name, f"{type(error).__name__}: {error}"[:1000])


class Lifespan:
    """What `lifespan` made of a function."""

    def __init__(
        self, function: Callable[[], Iterator[None]] | Callable[[], AsyncIterator[None]]
    ) -> None:
        name = getattr(function, "__name__", repr(function))
        self.is_async = inspect.isasyncgenfunction(function)
        if not self.is_async and not inspect.isgeneratorfunction(function):
            raise BadInput(
                name,
                "a lifespan is a generator: it sets up, yields once, and takes down; decorate the "
                "function itself, without @contextmanager",
            )
        if inspect.signature(function).parameters:
            raise BadInput(name, "a lifespan takes no parameters")
        self.name = f"{shown_module(function.__module__)}.{name}"
        self.enter: Callable[[], Entered] = (
            asynccontextmanager(cast("Callable[[], AsyncIterator[None]]", function))
            if self.is_async
            else contextmanager(cast("Callable[[], Iterator[None]]", function))
        )

    def __repr__(self) -> str:
        return f"<Lifespan {self.name}>"


def lifespan(
    function: Callable[[], Iterator[None]] | Callable[[], AsyncIterator[None]],
) -> Lifespan:
    """Declare what this module's agents need: set up before `yield`, taken down after it.

    Runs once in each process that runs handlers of the module, before the host is ready and after
    its last attempt; for agents with isolation="process" in the process that children are forked
    from, which has no event loop: it must be a plain generator there. Several run in their order.
    If it raises, the host does not start. Raises `BadInput`.
    """
    return Lifespan(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One thing to be entered; which of the two kinds `enter` returns, says `is_async`."""

    name: str
    is_async: bool
    enter: Callable[[], Entered]


def spans_of(agents: Sequence[Agent[..., Any]]) -> list[Span]:
    """Return what is entered for these agents, in this order: their modules' lifespans, then the
    agents' own classes, where they are context managers. No instance is made yet."""
    found: list[Span] = []
    seen: set[int] = set()
    for name in dict.fromkeys(name for agent in agents for name in agent.modules):
        for one in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
            if isinstance(one, Lifespan) and id(one) not in seen:
                seen.add(id(one))
                found.append(Span(name=one.name, is_async=one.is_async, enter=one.enter))
    return found + [span for agent in agents for span in _of_class(agent)]


def _of_class(agent: Agent[..., Any]) -> Iterator[Span]:
    kind = agent.kind
    if kind is None:
        return
    is_async = hasattr(kind, "__aenter__")
    if is_async or hasattr(kind, "__enter__"):
        enter = cast("Callable[[], Entered]", lambda: agent.handler)
        name = f"{shown_module(kind.__module__)}.{kind.__qualname__}"
        yield Span(name=name, is_async=is_async, enter=enter)


def refuse_async(spans: Sequence[Span]) -> None:
    """Raise `BadInput` if one of these needs a loop, where children will be forked."""
    for span in spans:
        if span.is_async:
            raise BadInput(
                span.name,
                "is async, but agents of its module run in child processes, and there is no event "
                "loop before a fork: make it plain, or put those agents into another module",
            )


@asynccontextmanager
async def lived(spans: Sequence[Span]) -> AsyncIterator[None]:
    """Enter all of them, one after the other; leave them in reverse at the exit, in bounded time.

    Raises `StartFailed`, when those before have been left. What goes wrong at the end is logged.
    """
    entered: list[tuple[Span, Entered]] = []
    try:
        for span in spans:
            try:
                manager = span.enter()
                if span.is_async:
                    await cast("AbstractAsyncContextManager[Any]", manager).__aenter__()
                else:
                    cast("AbstractContextManager[Any]", manager).__enter__()
            except Exception as error:
                raise StartFailed.of(span, error) from error
            entered.append((span, manager))
        yield
    finally:
        await _leave(entered)


async def _leave(entered: list[tuple[Span, Entered]]) -> None:
    until = asyncio.get_running_loop().time() + _LEAVE_SECONDS
    for span, manager in reversed(entered):
        bound = asyncio.timeout_at(until)
        try:
            async with bound:
                if span.is_async:
                    asynchronous = cast("AbstractAsyncContextManager[Any]", manager)
                    await asynchronous.__aexit__(None, None, None)
                else:
                    await _left_in_a_thread(cast("AbstractContextManager[Any]", manager))
        except Exception as error:  # noqa: BLE001  it is logged; the others are to be left as well
            if bound.expired() and isinstance(error, TimeoutError):
                _LOG.error("%s does not end within %g s", span.name, _LEAVE_SECONDS)
            else:
                _LOG.exception("%s has failed at its end", span.name)


async def _left_in_a_thread(manager: AbstractContextManager[Any]) -> None:
    """A plain one could hold the loop up for ever; in a daemon, nobody waits for it that long."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def leave() -> None:
        error: BaseException | None = None
        try:
            manager.__exit__(None, None, None)
        except BaseException as raised:  # noqa: BLE001  it is told to whoever waits
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=leave, name="lifespan", daemon=True).start()
    await done
