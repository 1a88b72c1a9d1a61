"""The same with nats-py alone: `pip install nats-py`, nothing of Callboard."""

from __future__ import annotations

import asyncio
import json
import os

import nats


async def main() -> None:
    """Post, then ask the ledger until the task has ended."""
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    stored = await client.request("cb.task.acme.hello", b'{"payload": {"name": "nats-py"}}')
    task = str(json.loads(stored.data)["seq"])
    while True:
        question = json.dumps({"id": task, "fresh": True}).encode()
        answer = await client.request("cb.ask.acme.status", question, timeout=10)
        view = json.loads(answer.data)
        if view.get("state") not in {"waiting", "running"}:
            break
        await asyncio.sleep(0.2)
    print(view.get("state"), view.get("result"), view.get("error"))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
