"""Posts three tasks at once and prints what came of them; run it where `callboard up` runs."""

from __future__ import annotations

import asyncio

from callboard import TaskFailed, connect


async def main() -> None:
    """Post, then wait: the three run in parallel."""
    async with connect() as board:
        names = [{"name": "Ada"}, {"name": "Grace", "times": 2}, {"nom": "Alan"}]
        handles = [await board.submit("hello", name) for name in names]
        for handle in handles:
            try:
                print(handle.id, await handle.result(timeout=30))
            except TaskFailed as failed:
                print(handle.id, failed.error.type, failed.error.field)


if __name__ == "__main__":
    asyncio.run(main())
