"""Python's cycle collector in a process that reads messages without end.

Structs of messages are freed by their reference counts; the collector only walks through them again
and again. Rarely is enough, and the modules need not be looked at.
"""

from __future__ import annotations

import gc

__all__ = ["collect_rarely"]

_ALLOCATIONS = 50_000


def collect_rarely() -> None:
    """Call it once, when the modules are imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 50)
