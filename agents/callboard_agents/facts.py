"""Which attempt something is about, as lines of a log say it."""

from __future__ import annotations

import msgspec

from callboard_broker.trace import Origin
from callboard_broker.wire import Dispatch

__all__ = ["Attempt"]


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One attempt, by what a reader of logs wants to know of it."""

    task: str
    attempt: int
    tenant: str
    capability: str
    origin: Origin

    @classmethod
    def of(cls, dispatch: Dispatch, tenant: str, board: str, capability: str = "") -> Attempt:
        """That of a dispatch. capability: of the agent, if the dispatch names none."""
        origin = Origin(board, dispatch.root, dispatch.trace, dispatch.shard)
        named = dispatch.capability or capability
        return cls(dispatch.task, dispatch.attempt, tenant, named, origin)

    def facts(self) -> dict[str, object]:
        """The `extra` of a record about it."""
        return {
            "task": self.task,
            "attempt": self.attempt,
            "tenant": self.tenant,
            "capability": self.capability,
            "workflow": self.origin.root_of(self.task),
            "trace": self.origin.trace_of(self.task),
        }
