"""Secrets of attempts, drawn from the system's randomness many at a time: one call a lot."""

from __future__ import annotations

import secrets

__all__ = ["Secrets"]

_LOT = 256
_DIGITS = 16


class Secrets:
    """An endless supply; each is 64 random bits in hex."""

    __slots__ = ("_lot", "_next")

    def __init__(self) -> None:
        self._lot = ""
        self._next = 0

    def draw(self) -> str:
        """Return a secret that was never given out before."""
        start = self._next
        if start == len(self._lot):
            self._lot = secrets.token_hex(_LOT * _DIGITS // 2)
            start = 0
        self._next = start + _DIGITS
        return self._lot[start : start + _DIGITS]
