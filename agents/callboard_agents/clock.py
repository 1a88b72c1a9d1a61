"""The clock of the leases: it goes on while the machine sleeps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

__all__ = ["lease_now"]

if sys.platform == "linux":

    def lease_now() -> float:
        """Seconds since some point in the past; never steps back, counts a suspended machine."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    lease_now: Callable[[], float] = time.monotonic
