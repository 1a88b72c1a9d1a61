"""What agents some modules hold, found out by a process of its own.

A supervisor must know it before any host runs, and anew after each deployment, but must not import
the modules itself: it would keep the first version for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence

import msgspec

from callboard_agents.loading import load
from callboard_broker.errors import BadInput

__all__ = ["Surveyed", "take_survey", "tell_survey"]

_SECONDS = 60.0  # as long as an import may take


class Surveyed(msgspec.Struct, frozen=True):
    """One agent. cpu (cores), memory_mb: what one attempt of it needs."""

    capability: str
    cpu: float = 0.0
    memory_mb: float = 0.0


async def take_survey(modules: Sequence[str]) -> list[Surveyed]:
    """Return the agents of `modules`. Raises `BadInput` if they cannot be loaded; why, stands in
    what the process printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard_agents", "--survey", *modules),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            told, _ = await process.communicate()
        return msgspec.json.decode(told, type=list[Surveyed])
    except TimeoutError:
        raise BadInput("agents", f"not loaded within {_SECONDS:g} s") from None
    except msgspec.MsgspecError:
        raise BadInput("agents", "they cannot be loaded; see the output") from None
    finally:
        if process.returncode is None:
            process.kill()


def tell_survey(modules: Sequence[str]) -> None:
    """In that process: load them and say what they hold. Raises `BadInput`."""
    with contextlib.redirect_stdout(sys.stderr):  # a module may print when it is imported
        agents = load(modules)
    found = [Surveyed(one.capability, one.cpu or 0.0, one.memory_mb or 0.0) for one in agents]
    sys.stdout.write(msgspec.json.encode(found).decode())
