"""Budgets as the journal has them: what limits each, and how much of it attempts have taken.

Tokens and units are taken at a dispatch that counts and given back at the outcome or the loss of
that attempt, nowhere else; so at each sequence the accounts are those of the attempts that run. An
account that is not limited is open only while something of it is in use. What a workflow bounds for
itself is no budget of anybody else's and is not kept here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import msgspec

from callboard_broker.limits import Limit, over
from callboard_broker.posts import Terms
from callboard_broker.wire import Budget

__all__ = ["TENANT", "Account", "Budgets", "Draws", "draws_of", "keys_of"]

TENANT = "tenant"
"""The key of what holds, field by field, for every tenant."""


class Draws(msgspec.Struct, array_like=True, frozen=True):
    """What a task says of it: further budgets by name, and units that an attempt reserves."""

    budgets: tuple[str, ...] = ()
    units: dict[str, float] = {}


class Account(msgspec.Struct, omit_defaults=True):
    """One budget. base: what the settings say; changed: what was set on the running board, which
    comes first. limit: what holds, with what holds for every tenant; None: nothing limits it.

    in_use: attempts that run. most: the most since it has a limit; exceeded: dispatches that came
    although no token was free. reserved: units of attempts that run. used: by those that have
    ended, since it has a limit; what one did not tell, or a lost one, as it was reserved.
    """

    key: str
    base: Limit | None = None
    changed: Limit | None = None
    limit: Limit | None = None
    in_use: int = 0
    most: int = 0
    exceeded: int = 0
    reserved: dict[str, float] = {}
    used: dict[str, float] = {}

    @property
    def open(self) -> bool:
        """Whether there is anything to tell of it."""
        return self.in_use > 0 or self.limit is not None


def draws_of(terms: Terms) -> Draws | None:
    """What of the terms is about budgets; None for the most."""
    if not (terms.budgets or terms.units):
        return None
    return Draws(tuple(terms.budgets), {unit: float(n) for unit, n in terms.units.items()})


@functools.lru_cache(maxsize=65_536)
def keys_of(tenant: str, capability: str, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The budgets that an attempt draws on; `callboard_router.accounts` has the same rule."""
    return (
        "global",
        f"tenant/{tenant}",
        f"capability/{capability}",
        f"tenant/{tenant}/{capability}",
        *dict.fromkeys(f"key/{name}" for name in names),
    )


class Budgets:
    """The accounts by their keys. `change`, `take`, `give_back` and `correct` are the fold's."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._touched: set[str] = set()

    def restore(self, rows: Iterable[Account]) -> None:
        """Begin where a store left off."""
        self.accounts = {row.key: row for row in rows}

    def change(self, event: Budget) -> None:
        """The settings say something else, or budgets were set or taken back."""
        accounts = self.accounts
        if event.base is not None:
            for key in accounts.keys() | event.base.keys():
                self._account(key).base = event.base.get(key)
        for key, limit in event.changed.items():
            account = self._account(key)
            account.changed = None if limit is None else over(limit, account.changed)
        for account in [*accounts.values()]:
            self._limit(account)
            self._touched.add(account.key)

    def take(self, tenant: str, capability: str, draws: Draws | None) -> None:
        """An attempt is dispatched."""
        accounts = self.accounts
        keys = keys_of(tenant, capability, draws.budgets if draws is not None else ())
        self._touched.update(keys)
        for key in keys:
            account = accounts.get(key)
            if account is None:
                account = self._account(key)
                self._limit(account)
            in_use = account.in_use = account.in_use + 1
            limit = account.limit
            if limit is not None:
                if limit.concurrency is not None and in_use > limit.concurrency:
                    account.exceeded += 1
                account.most = max(account.most, in_use)
        if draws is not None and draws.units:
            for key in keys:
                _add(accounts[key].reserved, draws.units, 1)

    def give_back(
        self, tenant: str, capability: str, draws: Draws | None, used: Mapping[str, float]
    ) -> None:
        """An attempt has ended. used: what it tells of its units."""
        accounts = self.accounts
        keys = keys_of(tenant, capability, draws.budgets if draws is not None else ())
        units = draws.units if draws is not None else {}
        self._touched.update(keys)
        for key in keys:
            account = accounts.get(key)
            if account is None:  # a projection that this was restored from had parked it
                continue
            account.in_use -= 1
            if units:
                _add(account.reserved, units, -1)
            if account.limit is not None and (units or used):
                _add(account.used, {**units, **used}, 1)

    def correct(
        self, tenant: str, capability: str, draws: Draws | None, used: Mapping[str, float]
    ) -> None:
        """What a lost attempt has used has come late: it replaces what was reserved."""
        if draws is None or not draws.units:
            return
        more = {unit: amount - draws.units.get(unit, 0.0) for unit, amount in used.items()}
        for key in keys_of(tenant, capability, draws.budgets):
            account = self.accounts.get(key)
            if account is not None and account.limit is not None:
                _add(account.used, more, 1)
                self._touched.add(key)

    def changed(self) -> tuple[list[Account], list[str]]:
        """The accounts that changed since the last save, and the keys of those that are closed."""
        there, closed = [], []
        for key in self._touched:
            account = self.accounts.get(key)
            if account is not None and account.open:
                there.append(account)
            else:
                closed.append(key)
        return there, closed

    def saved(self) -> None:
        """A store has what has changed; what is closed goes."""
        for key in self._touched:
            account = self.accounts.get(key)
            if account is not None and not account.open:
                del self.accounts[key]
        self._touched = set()

    def _account(self, key: str) -> Account:
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account(key, reserved={}, used={})
        return account

    def _limit(self, account: Account) -> None:
        """Work out what limits it."""
        limit = None
        if account.base is not None or account.changed is not None:
            limit = over(account.changed, account.base)
        kind, slash, rest = account.key.partition("/")
        if kind == TENANT and slash and "/" not in rest:
            every = self.accounts.get(TENANT)
            if every is not None and (every.base is not None or every.changed is not None):
                limit = over(limit, over(every.changed, every.base))
        account.limit = limit
        if limit is None:
            account.most = account.exceeded = 0
            account.used = {}
        else:
            account.most = max(account.most, account.in_use)


def _add(total: dict[str, float], amounts: Mapping[str, float], times: int) -> None:
    """Sums of fractions do not come out even: what is next to nothing is nothing."""
    for unit, amount in amounts.items():
        found = total.get(unit, 0.0) + times * amount
        if abs(found) < 1e-9:
            total.pop(unit, None)
        else:
            total[unit] = found
