"""The agents of the benchmark: they do nothing, so that all that is measured is Callboard."""

from __future__ import annotations

import asyncio

from callboard import Limits, agent


@agent("bench.noop", slots=1000)
async def noop(payload: dict[str, int]) -> dict[str, int]:
    """Return what came."""
    return payload


@agent("bench.split", slots=1000)
async def split(payload: dict[str, int]) -> list[int]:
    """Return a list to fan out over."""
    return list(range(payload["n"]))


@agent("bench.join", slots=1000)
async def join(payload: dict[str, list[dict[str, int]]]) -> int:
    """Return how much arrived."""
    return len(payload["items"])


_held = 0
_released = asyncio.Event()


@agent("bench.hold", slots=1000)
async def hold(payload: dict[str, int]) -> dict[str, int]:
    """Stay in flight until `bench.release`."""
    global _held  # noqa: PLW0603  of this process
    _held += 1
    await _released.wait()
    return payload


@agent("bench.held")
async def held(_payload: object) -> int:
    """How many attempts of `bench.hold` have begun."""
    return _held


@agent("bench.release")
async def release(_payload: object) -> None:
    """Let them end."""
    _released.set()


@agent("bench.apart", isolation="process", slots=16)
def apart(payload: dict[str, int]) -> dict[str, int]:
    """Return what came, from a child process."""
    return payload


@agent("bench.apart.async", isolation="process", slots=16)
async def apart_async(payload: dict[str, int]) -> dict[str, int]:
    """The same as a coroutine."""
    return payload


@agent("bench.apart.kept", isolation="process", slots=16, limits=Limits(tasks_per_child=1000))
def apart_kept(payload: dict[str, int]) -> dict[str, int]:
    """Return what came, from a child process that runs further tasks of its tenant."""
    return payload
