"""The trace of a task: one id for it, its steps, and all that they spawn (W3C Trace Context).

A poster may give one. Else it is a hash of board and root task, so that whoever knows these two
comes to the same id, and nothing needs to be stored or sent.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["Origin", "TraceId", "root_of", "trace_of"]

TraceId = Annotated[str, Meta(pattern=r"^(?!0{32}$)[0-9a-f]{32}$")]
"""32 hexadecimal digits, not all of them 0: the trace-id of W3C Trace Context."""


def root_of(task: str) -> str:
    """The task or workflow that `task` is a part of, by its id alone."""
    return task.partition(".")[0]


def trace_of(board: str, root: str) -> str:
    """The trace of a root task that was given none. board: its prefix."""
    return hashlib.blake2b(f"{board}/{root}".encode(), digest_size=16).hexdigest()


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a task comes from. root: empty if its id says it. trace: empty if none was given."""

    board: str = "cb"
    root: str = ""
    trace: str = ""
    shard: int = 0

    def root_of(self, task: str) -> str:
        """The outermost task or workflow."""
        return self.root or root_of(task)

    def trace_of(self, task: str) -> str:
        """Its trace."""
        return self.trace or trace_of(self.board, self.root_of(task))
