"""What this integration raises beside the errors of the board.

CallboardError
+-- DurabilityRefused (ValueError)   remote work needs checkpoints that are written first
+-- LeaseHeld (RuntimeError)         somebody else runs this thread; `.thread`, `.holder`
+-- LeaseLost (RuntimeError)         a newer holder has this thread: nothing was written
+-- NotMappable (ValueError)         a graph is no workflow; `.reasons` names each obstacle
"""

from __future__ import annotations

from collections.abc import Sequence

from callboard_broker.errors import CallboardError

__all__ = ["DurabilityRefused", "LeaseHeld", "LeaseLost", "NotMappable"]


class DurabilityRefused(CallboardError, ValueError):
    """A node that works remotely runs in a graph whose checkpoints may be late."""

    def __init__(self, node: str, durability: str) -> None:
        super().__init__(
            f"{node} runs on a remote agent, and this graph runs with durability={durability!r}: "
            "a crash would forget which tasks it had posted, and all of them would run twice. "
            "Pass durability='sync' to invoke or stream, or run `durable(graph)` instead of graph"
        )
        self.node = node
        self.durability = durability


class LeaseHeld(CallboardError, RuntimeError):
    """Thread `.thread` is held by `.holder`, which has said so within its lease."""

    def __init__(self, thread: str, holder: str) -> None:
        super().__init__(
            f"thread {thread!r} is held by {holder}; wait until its lease has ended, or take it "
            "over with take_over=True: what the other one still writes is then refused"
        )
        self.thread = thread
        self.holder = holder


class LeaseLost(CallboardError, RuntimeError):
    """Thread `.thread` has been taken over or deleted: this write was refused by the server."""

    def __init__(self, thread: str) -> None:
        super().__init__(
            f"thread {thread!r} has a newer holder or was deleted; stop this run: nothing that it "
            "still writes is stored"
        )
        self.thread = thread


class NotMappable(CallboardError, ValueError):
    """The graph cannot be run as a workflow. `.reasons`: one sentence for each obstacle."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("this graph is no workflow: " + "; ".join(reasons))
        self.reasons = list(reasons)
