"""Writes of many tasks to one checkpoint, at once, until somebody kills it; says what is stored.

The third argument is a lease under which it does so, in seconds.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint

from callboard_integrations.langgraph import JetStreamSaver


async def main(url: str, thread: str, seconds: str = "") -> None:
    async with (
        JetStreamSaver.from_url(url) as saver,
        saver.lease(thread, seconds=float(seconds)) if seconds else nullcontext(),
    ):
        config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        at = await saver.aput(config, empty_checkpoint(), {}, {})

        async def work(lane: int) -> None:
            for number in range(lane, 1_000_000, 8):
                writes = [(channel, channel * 500) for channel in "abcd"]
                await saver.aput_writes(at, writes, f"task-{number}")
                print(f"[{number}]", flush=True)

        await asyncio.gather(*[work(lane) for lane in range(8)])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
