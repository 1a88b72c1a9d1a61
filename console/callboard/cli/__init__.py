"""The `callboard` command: one file a group of commands, loaded when it is called."""

from __future__ import annotations

from callboard.cli.entry import main

__all__ = ["main"]
