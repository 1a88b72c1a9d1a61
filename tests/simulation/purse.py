"""The checker's own accounts: what each budget allows, and what is taken of it, by the journal.

A bucket is a level that rises with time up to its brim; every dispatch must leave it at 0 or above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.simulation.world import Violation

__all__ = ["Draw", "Purse"]

_ROUNDING_MS = 2
_UNKNOWN_MS = 40_000
"""An outcome may have used more than was reserved: a router that has not read it cannot know."""

Limit = dict[str, Any]


class Draw:
    """What one attempt takes: a token of each key, and units."""

    def __init__(self, keys: Iterable[str], units: dict[str, float]) -> None:
        self.keys = list(keys)
        self.units = units


class Purse:
    """Limits by key, field by field: set on the running board, by the settings, for all tenants."""

    def __init__(self) -> None:
        self.in_use: Counter[str] = Counter()
        self.own: dict[str, int] = {}
        self.base: dict[str, Limit] = {}
        self.changed: dict[str, Limit] = {}
        self._levels: dict[tuple[str, str], tuple[float, int]] = {}
        self._held: list[Draw] = []
        self._overdrawn: list[tuple[tuple[str, str], float, int]] = []

    def limit(self, key: str) -> Limit:
        """What holds for this budget."""
        if key in self.own:
            return {"concurrency": self.own[key]}
        found = _over(self.changed.get(key, {}), self.base.get(key, {}))
        if key.startswith("tenant/") and key.count("/") == 1:
            return _over(found, self.limit("tenant"))
        return found

    def change(self, event: dict[str, Any], at_ms: int) -> None:
        """A budget event. What was drawn from a bucket stays drawn, whatever its brim is now."""
        drawn = {name: self._brim(name)[0] - self._level(name, at_ms) for name in self._levels}
        if event.get("base") is not None:
            self.base = event["base"]
        for key, limit in event.get("changed", {}).items():
            if limit is None:
                self.changed.pop(key, None)
            else:
                self.changed[key] = _over(limit, self.changed.get(key, {}))
        self._levels = {}
        for name, taken in drawn.items():
            if self._brim(name)[0] >= 0:
                self._levels[name] = (self._brim(name)[0] - taken, at_ms)
        for draw in self._held:
            for name, amount in self._amounts(draw, rate=False):
                if name not in drawn:
                    level = self._levels.get(name, (self._brim(name)[0], at_ms))[0]
                    self._levels[name] = (level - amount, at_ms)

    def take(self, draw: Draw, at_ms: int, who: str) -> None:
        """A dispatch. Raises `Violation` if a budget does not allow it."""
        known = at_ms - _UNKNOWN_MS
        self._overdrawn = [drawn for drawn in self._overdrawn if drawn[2] > known]
        self._held.append(draw)
        for key in draw.keys:
            self.in_use[key] += 1
            most = self.limit(key).get("concurrency")
            if most is not None and self.in_use[key] > most:
                raise Violation("I2", f"{who}: {self.in_use[key]} of {key} in use, {most} allowed")
        for name, amount in self._amounts(draw, rate=True):
            level = self._level(name, at_ms) - amount
            self._levels[name] = (level, at_ms)
            level += sum(more for of, more, then in self._overdrawn if of == name)
            if amount and level < -_ROUNDING_MS * self._brim(name)[1] - 1e-6:
                raise Violation("I2", f"{who}: {name} is at {level} of {self._brim(name)}")

    def give_back(self, draw: Draw, used: dict[str, float], at_ms: int) -> None:
        """An outcome or a loss. What was reserved and is not named stays charged."""
        self._held.remove(draw)
        for key in draw.keys:
            self.in_use[key] -= 1
        self.correct(draw, used, at_ms)

    def correct(self, draw: Draw, used: dict[str, float], at_ms: int) -> None:
        """What was used replaces what was reserved."""
        for key in draw.keys:
            for unit, amount in used.items():
                brim = self._brim((key, unit))[0]
                if brim >= 0:
                    more = amount - draw.units.get(unit, 0)
                    level = self._level((key, unit), at_ms) - more
                    self._overdrawn.append(((key, unit), max(0, more), at_ms))
                    self._levels[key, unit] = (min(brim, level), at_ms)

    def _amounts(self, draw: Draw, *, rate: bool) -> list[tuple[tuple[str, str], float]]:
        asked = [*draw.units.items(), *([("", 1.0)] if rate else [])]
        pairs = [((key, unit), amount) for key in draw.keys for unit, amount in asked]
        return [(name, amount) for name, amount in pairs if self._brim(name)[0] >= 0]

    def _brim(self, name: tuple[str, str]) -> tuple[float, float]:
        """(most, refill a millisecond) of a bucket; (-1, 0) if there is none."""
        key, unit = name
        limit = self.limit(key)
        if not unit:
            rate = limit.get("rate")
            return (-1, 0) if rate is None else (limit.get("burst", max(1.0, rate)), rate / 1000)
        quota = limit.get("units", {}).get(unit)
        if quota is None:
            return -1, 0
        return quota["limit"], quota["limit"] / quota["per"] / 1000 if "per" in quota else 0

    def _level(self, name: tuple[str, str], at_ms: int) -> float:
        brim, per_ms = self._brim(name)
        level, then = self._levels.get(name, (brim, at_ms))
        return min(brim, level + max(0, at_ms - then) * per_ms)


def _over(first: Limit, second: Limit) -> Limit:
    """What the first says, and else the second; units one by one."""
    units = second.get("units", {}) | first.get("units", {})
    return second | first | ({"units": units} if units else {})
