"""`--follow`: what a command shows, again and again until Ctrl-C or until nothing changes any more.

On a terminal each showing takes the place of the last one; in a pipe, and with --json, they follow
one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from callboard.cli.screen import Screen

__all__ = ["watch"]

_EVERY_SECONDS = 1.0


async def watch(screen: Screen, show: Callable[[], Awaitable[bool]], *, follow: bool) -> None:
    """Show once, or with `follow` every second. show: prints, and says whether there is more."""
    while True:
        if follow and screen.terminal:
            screen.clear()
        if not await show() or not follow:
            return
        await asyncio.sleep(_EVERY_SECONDS)
