"""How a part of a board tells the process that started it that it works: a line down a pipe."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Annotated

import typer

__all__ = ["READY", "ReadyTo", "teller"]

_LOG = logging.getLogger("callboard")

READY = b"ready\n"

ReadyTo = Annotated[int | None, typer.Option("--ready-fd", hidden=True)]


def teller(descriptor: int | None) -> Callable[[], None]:
    """What tells it, once: in the log, and down the pipe if there is one."""
    left = [] if descriptor is None else [descriptor]

    def tell() -> None:
        _LOG.info("ready")
        if left:
            with os.fdopen(left.pop(), "wb") as pipe:
                pipe.write(READY)

    return tell
