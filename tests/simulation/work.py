"""What the handlers of the simulation compute, and what a host serves."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import msgspec

from callboard_router.liveness import Timing

__all__ = ["Serves", "work"]


def work(payload: Any) -> dict[str, Any]:
    """What every handler computes; `list` and `pad` in the payload shape the result."""
    asked = payload if isinstance(payload, dict) else {}
    text = msgspec.json.encode(payload, order="sorted")
    result: dict[str, Any] = {"v": zlib.crc32(text) % 100_000}
    if "list" in asked:
        result["list"] = [result["v"] + n for n in range(asked["list"])]
    if "pad" in asked:
        result["pad"] = "x" * asked["pad"]
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Serves:
    """What a host serves. slots: per capability. slow: of how many seconds a handler may take.

    disk: its label.
    """

    pool: str
    capabilities: tuple[str, ...]
    slots: int
    slow: float
    disk: str
    timing: Timing
