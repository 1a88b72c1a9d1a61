"""Agents for workflows of the specification's interface."""

from __future__ import annotations

import asyncio
from typing import Any

from callboard_agents import Context, agent


@agent("list", specialization=["files"])
async def listing(payload: dict[str, Any]) -> dict[str, Any]:
    """Return names."""
    return {"files": [f"{payload['root']}/{number}" for number in range(payload["count"])]}


@agent("work", version="2.1", slots=20)
async def work(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Take a moment, and tokens; fail if told to."""
    ctx.settle(tokens=10)
    if payload.get("fail"):
        raise ValueError(f"told to fail: {payload['fail']}")
    await asyncio.sleep(payload.get("seconds", 0))
    return {"done": payload.get("file"), "task": ctx.task}
