# ruff: noqa: INP001  a folder of modules to mount, not a package
"""The agents that compose.yaml runs until BOARD_AGENTS names others."""

from __future__ import annotations

import os

from callboard import agent


@agent("hello")
async def hello(name: str) -> dict[str, str]:
    """Greet, and name the container that did."""
    return {"greeting": f"Hello, {name}!", "container": os.uname().nodename}
