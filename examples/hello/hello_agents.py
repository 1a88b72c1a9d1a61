"""One agent: `callboard up --agents hello_agents.py`, from this folder."""

from __future__ import annotations

from dataclasses import dataclass

from callboard import Context, agent


@dataclass
class Name:
    """The payload. A post without `name`, or with a number in it, fails and names the field."""

    name: str
    times: int = 1


@agent("hello", timeout=10)
async def hello(payload: Name, ctx: Context) -> dict[str, str]:
    """Greet. Async handlers run on the host's event loop, up to 100 at once."""
    ctx.progress({"greeting": payload.name})
    return {"text": " ".join([f"hello {payload.name}"] * payload.times)}
