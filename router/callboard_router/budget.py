"""Budgets: whether an attempt may be dispatched now, and if not, what it waits for.

It takes what it needs of all its budgets or of none: what runs (`Accounts`) and what is proposed
and not yet read back (`Reserved`) count alike, so whatever is stored fits the limits in force.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from callboard_router.accounts import GLOBAL, TENANT, Accounts, Need, need_of
from callboard_router.metering import RATE, Rule

__all__ = [
    "GLOBAL",
    "TENANT",
    "Accounts",
    "Need",
    "Reserved",
    "blocked",
    "is_impossible",
    "need_of",
    "ready_at",
]

_ENOUGH = 1e-6
"""Sums of fractions do not come out even: so much of a token may be missing."""

_NEVER_MS = 1e13
"""Three centuries: a rate may be as low as somebody likes."""


@dataclass(slots=True)
class Reserved:
    """What the dispatches under way will take once they are read back. freed: as in `Accounts`."""

    counts: dict[str, int] = field(default_factory=dict)
    units: dict[tuple[str, str], float] = field(default_factory=dict)
    freed: set[str] = field(default_factory=set)

    def open(self, need: Need) -> None:
        """A dispatch was proposed."""
        counts = self.counts
        for key in need.keys:
            counts[key] = counts.get(key, 0) + 1
        if need.units:
            self._open_units(need)

    def close(self, need: Need) -> None:
        """It was read back, or it will never be stored."""
        counts = self.counts
        self.freed.update(need.keys)
        for key in need.keys:
            left = counts[key] - 1
            if left:
                counts[key] = left
            else:
                del counts[key]
        if need.units:
            self._close_units(need)

    def clear(self) -> None:
        """A new epoch: nothing of the old one can be stored any more."""
        self.freed.update(self.counts)  # whoever waits for what was under way tries again
        self.counts.clear()
        self.units.clear()

    def _open_units(self, need: Need) -> None:
        for key in need.keys:
            for unit, amount in need.units:
                self.units[(key, unit)] = self.units.get((key, unit), 0.0) + amount

    def _close_units(self, need: Need) -> None:
        for key in need.keys:
            for unit, amount in need.units:
                rest = self.units.get((key, unit), 0.0) - amount
                if rest > 0 and key in self.counts:
                    self.units[(key, unit)] = rest
                else:
                    self.units.pop((key, unit), None)


def blocked(accounts: Accounts, reserved: Reserved, need: Need, at_ms: int) -> str | None:
    """The first budget without room; None: the attempt may be dispatched.

    `tenant/acme`: no token of it is free. `rate of global`, `units tokens of key/x`: its bucket
    has too little now (`ready_at` says until when).
    """
    rules, in_use, counts = accounts.rules, accounts.in_use, reserved.counts
    keys = need.keys
    for key in keys:
        rule = rules.get(key)
        if rule is None and key is keys[1]:
            rule = accounts.default
        if rule is None:
            continue
        if in_use.get(key, 0) + counts.get(key, 0) >= rule.concurrency:
            return key
        if rule.buckets:
            for unit, amount, pending in _asked(rule, reserved, need, key):
                found = accounts.missing(key, unit, amount + pending, at_ms)
                if found is not None and found[0] > _ENOUGH:
                    return f"rate of {key}" if unit == RATE else f"units {unit} of {key}"
    return None


def ready_at(
    accounts: Accounts,
    key: str,
    at_ms: int,
    *,
    need: Need | None = None,
    reserved: Reserved | None = None,
) -> int | None:
    """When time alone frees what `blocked` named; None: it does not.

    With `need` and `reserved` for what that task asks, else for the least that one can ask.
    """
    what, _, name = key.rpartition(" of ")
    if not what:
        return None
    unit = RATE if what == "rate" else what.removeprefix("units ")
    amount = 1.0 if unit == RATE or need is None else dict(need.units).get(unit, 0.0)
    pending = 0.0
    if reserved is not None:
        pending = _pending(reserved, name, unit)
    found = accounts.missing(name, unit, amount + pending, at_ms)
    if found is None:
        return at_ms
    missing, per_ms, capacity = found
    if missing <= _ENOUGH:
        return at_ms
    if not per_ms or amount > capacity + _ENOUGH:
        return None
    return at_ms + max(1, math.ceil(min((missing - _ENOUGH / 2) / per_ms, _NEVER_MS)))


def is_impossible(accounts: Accounts, key: str, need: Need) -> bool:
    """Whether the need asks for more than the bucket that `blocked` named ever holds."""
    what, _, name = key.rpartition(" of ")
    if not what or what == "rate":
        return False
    unit = what.removeprefix("units ")
    amount = dict(need.units).get(unit, 0.0)
    found = accounts.missing(name, unit, amount, 0)
    return found is not None and amount > found[2] + _ENOUGH


def _asked(
    rule: Rule, reserved: Reserved, need: Need, key: str
) -> Iterator[tuple[str, float, float]]:
    """(unit, amount, what is under way) of each bucket of this budget that the need draws on."""
    if RATE in rule.buckets:
        yield RATE, 1.0, _pending(reserved, key, RATE)
    for unit, amount in need.units:
        if unit in rule.buckets:
            yield unit, amount, _pending(reserved, key, unit)


def _pending(reserved: Reserved, key: str, unit: str) -> float:
    if unit == RATE:
        return float(reserved.counts.get(key, 0))
    return reserved.units.get((key, unit), 0.0)
