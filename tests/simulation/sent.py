"""What posters send, known to the checker from outside, and which posts are the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.simulation.specs import FlowSpec

__all__ = ["Memory", "Sent"]

_NONCE_MS = 60_000
_KEY_MS = 24 * 3_600_000


@dataclass(slots=True, kw_only=True, eq=False)
class Sent:
    """What is sent and what must become of it.

    kind: `task`, `schedule`, `flow`, `command`, `bad` (a post to be refused, naming the field
    `refused_for`), `garbage` (to be quarantined) or `outcome` (a forged one). remembered: whether
    its nonce and key are, once it is taken in. body: what was posted, as an object. parent: the
    (task, attempt, secret) that spawned it.
    """

    kind: str
    tenant: str
    subject: str
    data: bytes
    body: dict[str, Any] = field(default_factory=dict)
    flow: FlowSpec | None = None
    refused_for: str = ""
    nonce: str | None = None
    key: str | None = None
    remembered: bool = True
    parent: tuple[str, int, str] | None = None
    acked: list[int] = field(default_factory=list)

    @property
    def capability(self) -> str:
        return self.subject.split(".", 3)[-1]


class Memory:
    """The checker's own memory of nonces and keys."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}

    def first(self, sent: Sent, at_ms: int) -> str | None:
        """The earlier post that this one repeats."""
        for what, value, _ in _places(sent):
            first = self._known.get((what, sent.tenant, value))
            if first is not None and first[1] > at_ms:
                return first[0]
        return None

    def remember(self, name: str, sent: Sent, at_ms: int) -> None:
        for what, value, window in _places(sent):
            self._known[(what, sent.tenant, value)] = (name, at_ms + window)


def _places(sent: Sent) -> list[tuple[str, str, int]]:
    places = (("nonce", sent.nonce, _NONCE_MS), ("key", sent.key, _KEY_MS))
    return [(what, value, window) for what, value, window in places if value is not None]
