"""What a host and the keeper of a cell say to each other: a few bytes a message, both trusted."""

from __future__ import annotations

import struct

__all__ = ["BORN", "GONE", "Order"]

BORN = struct.Struct("!I")
"""A child is ready: its pid; its channel comes with it."""
GONE = struct.Struct("!iddBI")
"""The child is gone: its wait status, seconds of CPU, MiB at the most, whether memory ran out, and
how many processes and threads there were when another one was refused (0: none was)."""


class Order:
    """What a host wants: another child, the end of this one, or both in turn."""

    MAKE = b"m"
    KILL = b"k"
    KILL_AND_MAKE = b"a"
