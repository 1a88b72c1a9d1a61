"""What posters send, known to the checker from outside, and which posts are the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.simulation.flows import FlowSpec

__all__ = ["Memory", "Sent"]

_NONCE_MS = 60_000
_KEY_MS = 24 * 3_600_000


@dataclass(slots=True, kw_only=True, eq=False)
class Sent:
    """What a poster sends and what must become of it.

    kind: `task`, `flow`, `bad` (a post to be refused, naming the field `refused_for`), `garbage`
    (to be quarantined) or `outcome` (a forged one). remembered: whether its nonce and key are.
    """

    kind: str
    tenant: str
    subject: str
    data: bytes
    payload: Any = None
    flow: FlowSpec | None = None
    refused_for: str = ""
    nonce: str | None = None
    key: str | None = None
    remembered: bool = True
    acked: list[int] = field(default_factory=list)


class Memory:
    """The checker's own memory of nonces and keys."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}

    def first(self, name: str, sent: Sent, at_ms: int) -> str | None:
        """The earlier post that this one repeats; if there is none, it is remembered."""
        places = [("nonce", sent.nonce, _NONCE_MS), ("key", sent.key, _KEY_MS)]
        for what, value, _ in places:
            first = self._known.get((what, sent.tenant, value or ""))
            if value is not None and first is not None and first[1] > at_ms:
                return first[0]
        for what, value, window in places:
            if value is not None:
                self._known[(what, sent.tenant, value)] = (name, at_ms + window)
        return None
