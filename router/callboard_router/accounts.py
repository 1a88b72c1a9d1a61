"""The limits and what is used of them: an attempt takes what it needs of all its budgets.

Taken at a dispatch that the fold accepts, given back at the outcome or the loss of that attempt,
and never anywhere else; so at each point of the journal the tokens in use are exactly the attempts
that run. What flows (dispatches a second, LLM tokens a minute) is drawn from token buckets in the
time of the events: a bucket remembers what was drawn and not yet refilled, so that a higher limit
helps at once, and what was drawn beyond it is a debt that the rate pays off.

Keys: `global`, `tenant/T`, `capability/C`, `tenant/T/C`, `key/NAME`, and a workflow's own
(`flow/7`, `flow/7/build`). `tenant` holds, field by field, for every tenant.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from callboard_broker.limits import over
from callboard_broker.wire import Budget, Limit, Terms
from callboard_router.metering import RATE, Meter, Rule, rule_of
from callboard_router.tally import Tally

__all__ = ["GLOBAL", "TENANT", "Accounts", "Need", "need_of"]

GLOBAL = "global"
TENANT = "tenant"


class Need(msgspec.Struct, frozen=True, gc=False):
    """What one attempt takes: a token of each budget in `keys`, and `units` of those that limit it.

    keys[0] is `global`, keys[1] the tenant's.
    """

    keys: tuple[str, ...]
    units: tuple[tuple[str, float], ...] = ()


def need_of(
    tenant: str, capability: str, terms: Terms | None, *, flow_keys: tuple[str, ...] = ()
) -> Need:
    """What an attempt of this task takes; the same object for the same question."""
    if terms is None or not (terms.budgets or terms.units):
        return _need(tenant, capability, (), (), flow_keys)
    units = tuple(sorted((unit, float(amount)) for unit, amount in terms.units.items()))
    return _need(tenant, capability, tuple(terms.budgets), units, flow_keys)


@functools.lru_cache(maxsize=65_536)
def _need(
    tenant: str,
    capability: str,
    names: tuple[str, ...],
    units: tuple[tuple[str, float], ...],
    flow_keys: tuple[str, ...],
) -> Need:
    keys = (
        GLOBAL,
        f"{TENANT}/{tenant}",
        f"capability/{capability}",
        f"{TENANT}/{tenant}/{capability}",
        *dict.fromkeys(f"key/{name}" for name in names),
        *flow_keys,
    )
    return Need(keys, units)


@dataclass(slots=True)
class Accounts:
    """The limits and what is used of them: a part of the state, changed by the fold alone.

    base: what the settings say; changed: what was set on the running board, which comes first,
    field by field; limits: what holds. in_use: attempts that run, by budget. rules: the limits as
    they are checked; default: that of tenants without an entry. freed: budgets of which something
    was given back: a letterbox to the queue and no part of the state.
    """

    base: dict[str, Limit] = field(default_factory=dict)
    changed: dict[str, Limit] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    in_use: Tally[str] = field(default_factory=Tally)
    rules: dict[str, Rule] = field(default_factory=dict)
    default: Rule | None = None
    freed: set[str] = field(default_factory=set, compare=False)
    _own: dict[str, int] = field(default_factory=dict)
    _metered: bool = False
    _meters: dict[tuple[str, str], Meter] = field(default_factory=dict)
    _held: Tally[Need] = field(default_factory=Tally)
    _shares: dict[str, Limit] = field(default_factory=dict)

    # -- limits

    def change(self, event: Budget, at_ms: int) -> None:
        """The settings say something else, or budgets were set or taken back."""
        for (key, unit), meter in self._meters.items():
            rule = self.rule(key)
            if rule is not None and (bucket := rule.buckets.get(unit)) is not None:
                meter.refill(bucket, at_ms)
        if event.base is not None:
            self.base = dict(event.base)
        for key, limit in event.changed.items():
            if limit is None:
                self.changed.pop(key, None)
            else:
                self.changed[key] = over(limit, self.changed.get(key))
        self._work_out()
        self._adjust_meters(at_ms)

    def bound(self, key: str, concurrency: int) -> None:
        """A workflow has begun that limits itself."""
        self._own[key] = concurrency
        self.rules[key] = Rule(concurrency)

    def unbound(self, key: str) -> None:
        """It has ended."""
        self._own.pop(key, None)
        self.rules.pop(key, None)
        self.freed.discard(key)

    def limit_of(self, tenant: str) -> Limit:
        """What holds for this tenant; weight (1) and guaranteed (0) are always given."""
        found = self._shares.get(tenant)
        return self._shares.get("", _SHARE) if found is None else found

    def rule(self, key: str) -> Rule | None:
        """What limits this budget; None: nothing."""
        found = self.rules.get(key)
        if found is None and _is_tenant(key):
            return self.default
        return found

    # -- use

    def take(self, need: Need, at_ms: int) -> None:
        """At the dispatch."""
        in_use = self.in_use
        for key in need.keys:
            in_use[key] += 1
        if need.units:
            self._held[need] += 1
        if self._metered:
            self._draw(need, at_ms)

    def give_back(self, need: Need, used: dict[str, float] | None, at_ms: int) -> None:
        """At the outcome or the loss. used: units; what it does not name costs what was reserved.

        None: the attempt was lost, and nobody knows what it used.
        """
        in_use = self.in_use
        for key in need.keys:
            left = in_use[key] - 1
            if left > 0:
                in_use[key] = left
            else:
                in_use.pop(key, None)
        self.freed.update(need.keys)
        if need.units:
            left = self._held[need] - 1
            if left > 0:
                self._held[need] = left
            else:
                self._held.pop(need, None)
        if used and self._metered:
            self._settle(need, used, at_ms)

    def correct(self, need: Need, used: dict[str, float]) -> None:
        """A void attempt's outcome has come late: what it used replaces what it had reserved."""
        if used and self._metered:
            self._settle(need, used, None)
            self.freed.update(need.keys)

    def missing(
        self, key: str, unit: str, amount: float, at_ms: int
    ) -> tuple[float, float, float] | None:
        """(missing now, refill a ms, most that it ever holds) of a bucket; None: no such limit."""
        rule = self.rule(key)
        bucket = None if rule is None else rule.buckets.get(unit)
        if bucket is None:
            return None
        meter = self._meters.get((key, unit))
        drawn = 0.0 if meter is None else meter.drawn_by(bucket, at_ms)
        return drawn + amount - bucket.capacity, bucket.per_ms, bucket.capacity

    # -- snapshots

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values in an order that depends on nothing else."""
        held = sorted((list(n.keys), [list(u) for u in n.units], c) for n, c in self._held.items())
        return {
            "base": _plain(self.base),
            "changed": _plain(self.changed),
            "own": sorted(self._own.items()),
            "in_use": sorted(self.in_use.items()),
            "meters": sorted((*name, m.drawn, m.at_ms) for name, m in self._meters.items()),
            "held": held,
        }

    def load(self, plain: Any) -> None:
        """Become what `dump` wrote. Raises msgspec.ValidationError for anything else."""
        found = msgspec.convert(plain, _Dumped)
        self.base, self.changed = dict(found.base), dict(found.changed)
        self._own = dict(found.own)
        self.in_use = Tally(dict(found.in_use))
        self._meters = {(key, unit): Meter(drawn, at) for key, unit, drawn, at in found.meters}
        self._held = Tally({Need(keys, units): count for keys, units, count in found.held})
        self._work_out()

    # -- inside

    def _work_out(self) -> None:
        """What holds, from what the settings say and what was set since."""
        names = sorted(self.base.keys() | self.changed.keys())
        self.limits = {name: over(self.changed.get(name), self.base.get(name)) for name in names}
        default = self.limits.get(TENANT)
        self.default = None if default is None else rule_of(default)
        self.rules = {key: Rule(most) for key, most in self._own.items()}
        self._shares = {"": over(default, _SHARE)}
        for name, limit in self.limits.items():
            held = limit
            if _is_tenant(name):
                held = over(limit, default)
                self._shares[name.removeprefix("tenant/")] = over(held, _SHARE)
            if name != TENANT:
                self.rules[name] = rule_of(held)
        rules = [*self.rules.values(), *([] if self.default is None else [self.default])]
        self._metered = any(rule.buckets for rule in rules)

    def _adjust_meters(self, at_ms: int) -> None:
        """Drop the buckets of limits that are gone; into new ones goes what is reserved by now."""
        old = self._meters
        self._meters = {
            name: meter
            for name, meter in old.items()
            if (rule := self.rule(name[0])) is not None and name[1] in rule.buckets
        }
        for need in sorted(self._held, key=lambda need: (need.keys, need.units)):
            for key, unit, amount in _draws(self, need):
                if unit != RATE and (key, unit) not in old:
                    meter = self._meters.setdefault((key, unit), Meter(0.0, at_ms))
                    meter.drawn += amount * self._held[need]

    def _draw(self, need: Need, at_ms: int) -> None:
        for key, unit, amount in _draws(self, need):
            self._charge(key, unit, amount, at_ms)

    def _settle(self, need: Need, used: dict[str, float], at_ms: int | None) -> None:
        reserved = dict(need.units)
        for key in need.keys:
            rule = self.rule(key)
            if rule is None or not rule.buckets:
                continue
            for unit, amount in used.items():
                if unit in rule.buckets:
                    self._charge(key, unit, amount - reserved.get(unit, 0.0), at_ms)

    def _charge(self, key: str, unit: str, amount: float, at_ms: int | None) -> None:
        meter = self._meters.get((key, unit))
        if meter is None:
            if amount > 0:  # else nothing was drawn from it, and there is nothing to give back
                self._meters[(key, unit)] = Meter(amount, at_ms or 0)
            return
        if at_ms is not None:
            rule = self.rule(key)
            if rule is not None:
                meter.refill(rule.buckets[unit], at_ms)
        meter.drawn = max(0.0, meter.drawn + amount)


def _draws(accounts: Accounts, need: Need) -> Iterator[tuple[str, str, float]]:
    for key in need.keys:
        rule = accounts.rule(key)
        if rule is None or not rule.buckets:
            continue
        if RATE in rule.buckets:
            yield key, RATE, 1.0
        for unit, amount in need.units:
            if unit in rule.buckets:
                yield key, unit, amount


def _is_tenant(key: str) -> bool:
    return key.startswith("tenant/") and key.count("/") == 1


def _plain(limits: dict[str, Limit]) -> list[tuple[str, Any]]:
    return [(key, msgspec.to_builtins(limits[key])) for key in sorted(limits)]


_SHARE = Limit(weight=1.0, guaranteed=0)


class _Dumped(msgspec.Struct):
    base: list[tuple[str, Limit]]
    changed: list[tuple[str, Limit]]
    own: list[tuple[str, int]]
    in_use: list[tuple[str, int]]
    meters: list[tuple[str, str, float, int]]
    held: list[tuple[tuple[str, ...], tuple[tuple[str, float], ...], int]]
