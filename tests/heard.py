"""What one child of a nursery says, kept for a test."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from callboard_agents.sandbox import Ending

__all__ = ["Heard"]


class Heard:
    """What it tells, and its end, once. until: bytes that it shall tell; `reached` is set then."""

    def __init__(self, until: bytes = b"") -> None:
        self.told_of: list[tuple[str, bytes]] = []
        self.until = until
        self.reached = asyncio.Event()
        self.end: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @property
    def words(self) -> list[tuple[str, Any]]:
        """What it has told, read."""
        return [(kind, json.loads(data or b"null")) for kind, data in self.told_of]

    @property
    def lines(self) -> list[str]:
        """The text of all that it has told, which must be lines."""
        return [told["text"] for _, told in self.words]

    def told(self, kind: str, data: bytes) -> None:
        """Keep it."""
        self.told_of.append((kind, data))
        if self.until and self.until in data:
            self.reached.set()

    def asked(self, number: int, kind: str, data: bytes) -> None:
        """Nothing is asked in these tests."""
        raise AssertionError((number, kind, data))

    def ended(self, ending: Ending) -> None:
        """Keep it; a test that waits no more has failed already."""
        if not self.end.cancelled():
            self.end.set_result(ending)
