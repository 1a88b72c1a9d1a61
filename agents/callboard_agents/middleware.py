"""A chain around every attempt of a host, where its handler runs: measure, change, refuse, repeat.

It is composed once for each agent; an agent without middleware is called as if there were no such
thing. The chain of a plain function is driven to its end without an event loop: awaiting
`following` is no waiting there.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import msgspec

from callboard_agents.loading import load_module, shown_module
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput

if TYPE_CHECKING:
    from callboard_agents.agent import Agent
    from callboard_agents.context import Context

__all__ = ["Call", "Middleware", "Next", "Start", "chained", "load_middleware"]

_MODULES_NAME = "middleware"
_STEP_SECONDS = 0.05  # until a sleeping thread looks whether it is cancelled

T = TypeVar("T")

Start = Callable[[bytes | msgspec.Raw, "Context | None"], Any]
"""What runs a handler, as `Agent.start` does: its result, or the coroutine of an async one."""


class Call:
    """One attempt on its way to its handler. context: what the handler may know and say.

    task, attempt, tenant, capability: which one. It does not change: `with_payload` makes another,
    and `following(call)` may be awaited more than once.
    """

    __slots__ = ("_decoded", "_is_async", "context", "raw")

    def __init__(self, context: Context, raw: bytes | msgspec.Raw, *, is_async: bool) -> None:
        self.context = context
        self.raw = raw
        self._is_async = is_async
        self._decoded: Any = msgspec.UNSET

    @property
    def task(self) -> str:
        """The id of the task."""
        return self.context.task

    @property
    def attempt(self) -> int:
        """1 is the first."""
        return self.context.attempt

    @property
    def tenant(self) -> str:
        """Whose task it is."""
        return self.context.tenant

    @property
    def capability(self) -> str:
        """What was asked for."""
        return self.context.capability

    @property
    def payload(self) -> Any:
        """The payload as JSON has it, decoded when it is first asked for; not to be changed.

        Raises `BadInput` if it is no JSON.
        """
        if self._decoded is msgspec.UNSET:
            try:
                self._decoded = msgspec.json.decode(self.raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise BadInput("payload", str(error)[:300]) from error
        return self._decoded

    def with_payload(self, payload: Any) -> Self:
        """Return the call with another payload, which is read into the handler's type as any."""
        return type(self)(self.context, encode_payload(payload), is_async=self._is_async)

    async def sleep(self, seconds: float) -> None:
        """Wait, around a coroutine and around a plain function. Ends with the attempt: raises
        `asyncio.CancelledError`."""
        if self._is_async:
            await asyncio.sleep(seconds)
            return
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.context.cancelled:
                raise asyncio.CancelledError
            time.sleep(min(left, _STEP_SECONDS))  # noqa: ASYNC251  in the thread of a plain function

    async def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await anything else, also around a plain function in a thread, as `Context.wait` does.

        Raises `RuntimeError` around a plain function in a child process, which has no loop.
        """
        return await coroutine if self._is_async else self.context.wait(coroutine)


class Next(Protocol):
    """What follows in the chain: the next middleware, or the handler."""

    def __call__(self, call: Call, /) -> Awaitable[Any]:
        """Run it; awaited, it is the handler's result. Raises what the handler raises."""
        ...


class Middleware:
    """Around every attempt of the handlers that it is installed for.

    One object serves all attempts of a process, in its threads as well.
    """

    async def attempt(self, call: Call, following: Next) -> Any:
        """Run one attempt: return what it shall return, or raise what it shall fail with.

        Around a plain function await nothing but `following`, `call.sleep` and `call.wait`.
        """
        return await following(call)


def chained(agent: Agent[..., Any], outer: Sequence[Middleware]) -> Start | None:
    """Return what calls the agent through `outer` (the first is outermost) and then through the
    middleware of its modules; None if there is none. Raises `BadInput` for a chain that is none.
    """
    chain = [*outer, *_of_modules(agent.modules)]
    if not chain:
        return None
    following: Next = _last_async(agent) if agent.is_async else _last_plain(agent)
    for middleware in reversed(chain):
        following = _link(middleware, following)

    def start(payload: bytes | msgspec.Raw, context: Context | None) -> Any:
        if context is None:
            raise ValueError("a call through middleware has a context")
        coroutine = following(Call(context, payload, is_async=agent.is_async))
        return coroutine if agent.is_async else _driven(coroutine)

    return start


def load_middleware(places: Iterable[str]) -> list[Middleware]:
    """Return the middleware of `package.module:name` or `path/to/file.py:name`: an object, or a
    list of them; without a name, the module's `middleware`. Raises `BadInput` that names the place.
    """
    found: list[Middleware] = []
    for place in places:
        where, _, name = place.partition(":")
        module = load_module(where)
        chain = _chain(getattr(module, name or _MODULES_NAME, None), place)
        if not chain:
            raise BadInput(place, "holds no middleware: name an object of a `Middleware` class")
        found += chain
    return found


def _of_modules(modules: Iterable[str]) -> list[Middleware]:
    found: list[Middleware] = []
    for name in dict.fromkeys(modules):
        module = sys.modules.get(name)
        said = getattr(module, _MODULES_NAME, None)
        found += [
            one for one in _chain(said, f"{shown_module(name)}.{_MODULES_NAME}") if one not in found
        ]
    return found


def _chain(said: object, place: str) -> list[Middleware]:
    """What is no list of middleware at all is somebody else's variable of that name."""
    if isinstance(said, Middleware):
        return [said]
    parts = said if isinstance(said, list | tuple) else [said]
    for one in parts:
        if isinstance(one, type) and issubclass(one, Middleware):
            raise BadInput(place, f"{one.__name__} is a class: write {one.__name__}()")
    right = [one for one in parts if isinstance(one, Middleware)]
    for one in right:
        if not inspect.iscoroutinefunction(one.attempt):
            raise BadInput(place, f"{type(one).__name__}.attempt is plain: write `async def`")
    if right and len(right) < len(parts):
        wrong = next(one for one in parts if not isinstance(one, Middleware))
        raise BadInput(place, f"{wrong!r:.80} is no Middleware")
    return right


def _link(middleware: Middleware, following: Next) -> Next:
    def link(call: Call, /) -> Awaitable[Any]:
        return middleware.attempt(call, following)

    return link


def _last_async(agent: Agent[..., Any]) -> Next:
    async def last(call: Call, /) -> Any:
        return await agent.start(call.raw, call.context)

    return last


def _last_plain(agent: Agent[..., Any]) -> Next:
    async def last(call: Call, /) -> Any:
        return agent.start(call.raw, call.context)

    return last


def _driven(awaitable: Awaitable[Any]) -> Any:
    """Run to its end what never waits."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as done:
        return done.value
    steps.close()
    raise RuntimeError(
        "a middleware around a plain function has awaited something that waits: use "
        "`await call.sleep(seconds)` or `await call.wait(coroutine)`"
    )
