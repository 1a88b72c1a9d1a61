"""What a child process may say to its host of one attempt."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from callboard_broker.bounds import check_document, check_size
from callboard_broker.errors import BadInput
from callboard_broker.posts import Amount, Unit

__all__ = ["ChildSide"]

_MAX_TOLD = 64 * 1024
_MAX_UNITS = 16

_skim = msgspec.json.Decoder(msgspec.Raw).decode
_units = msgspec.json.Decoder(dict[Unit, Amount]).decode


class ChildSide:
    """The host's side of an attempt whose handler is elsewhere. progress: sends it on.

    heard_at: when it last gave a sign of life, of `time.monotonic()`. used: by unit, so far.
    """

    __slots__ = ("_cancelled", "_progress", "heard_at", "used")

    def __init__(self, progress: Callable[[bytes], None]) -> None:
        self.heard_at = 0.0
        self.used: dict[str, float] = {}
        self._progress = progress
        self._cancelled = False

    def tell(self, kind: str, data: bytes) -> None:
        """Hear what needs no answer. Raises `BadInput` for what no handler says."""
        check_size(data, _MAX_TOLD, kind)
        if kind == "heartbeat":
            self.heard_at = time.monotonic()
        elif kind == "used":
            self._count(_units(data))
        elif kind == "progress":
            check_document(data, field="progress")
            data.decode()
            _skim(data)
            self.heard_at = time.monotonic()
            if not self._cancelled:
                self._progress(data)

    async def ask(self, kind: str, data: bytes) -> bytes:
        """Do what is wanted. Raises `BadInput`: nothing can be asked for yet."""
        raise BadInput(kind, f"a handler in a child process cannot do that ({len(data)} bytes)")

    def cancel(self) -> None:
        """Nothing that it says is of interest any more, but for what it used."""
        self._cancelled = True

    def _count(self, used: dict[str, float]) -> None:
        """All of it so far, as the handler counts."""
        if len(used) > _MAX_UNITS:
            raise BadInput("used", f"{len(used)} units; at most {_MAX_UNITS}")
        self.used = used
