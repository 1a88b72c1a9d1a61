"""The event loop of the host and of its beats: uvloop where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable

__all__ = ["loop_factory"]

if importlib.util.find_spec("uvloop") is not None:
    import uvloop

    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
else:
    loop_factory = asyncio.new_event_loop
