"""The agents of the benchmark: they do nothing, so that all that is measured is Callboard."""

from __future__ import annotations

from callboard import agent


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
