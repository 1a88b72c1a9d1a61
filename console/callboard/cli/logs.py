"""The log of a part of a board: lines on stderr, which `up` sends to a file."""

from __future__ import annotations

import logging

__all__ = ["start_logging"]


def start_logging() -> None:
    """Log what is worth knowing, and no longer only what a command says itself (`entry`)."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
