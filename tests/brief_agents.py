"""An agent whose tasks take five milliseconds."""

from __future__ import annotations

import asyncio

from callboard import agent


@agent("brief.work", slots=10)
async def work() -> None:
    """Wait a little."""
    await asyncio.sleep(0.005)
