"""The checker's own judgement of fairness: which tenant is passed over, how often, and how long.

A dispatch passes a tenant over if its own tenant has more in flight for its weight, while the other
one has a task that asks for just the same place and could run. A router that has not read the last
messages cannot know better: it may have been stopped, or given the tenant's last token away in the
same moment. So it is an offence only if it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.places import Places
from tests.simulation.tables import CheckedTask, Tables
from tests.simulation.world import Violation

__all__ = ["Fairness"]

_MOST = 2
_READ_MS = 500
"""As often in a row, and for as long, it may be that a router has not read the last messages."""


@dataclass(slots=True)
class _Series:
    """Dispatches in a row that passed a tenant over. since: ms, when the first one was stored."""

    since: int
    count: int = 0


class Fairness:
    """Sees every dispatch before it takes its tokens."""

    def __init__(self, tables: Tables, places: Places) -> None:
        self._tables = tables
        self._places = places
        self._passed: dict[tuple[str, str], _Series] = {}

    def judge(self, task: CheckedTask) -> None:
        """Raise `Violation` if the dispatch of this task passes another tenant over once more."""
        tables, capability, taken = self._tables, task.capability, self._share(task.tenant)
        self._passed.pop((task.tenant, capability), None)
        if not _is_plain(task):
            return
        waiting = self._who_else_waits(task)
        for tenant in sorted(waiting):
            where = tenant, capability
            if self._share(tenant) >= taken:
                self._passed.pop(where, None)
                continue
            series = self._passed.setdefault(where, _Series(tables.at_ms))
            series.count += 1
            lasted = tables.at_ms - series.since
            if series.count > _MOST and lasted > _READ_MS:
                times = f"{series.count} times in {lasted} ms"
                raise Violation("I6", f"{task.id} passes over {tenant}, as happened {times}")
        for where in list(self._passed):
            if where[1] == capability and where[0] not in waiting:
                del self._passed[where]

    def _who_else_waits(self, task: CheckedTask) -> set[str]:
        """The other tenants that have a task which could take the same place."""
        pool = self._places.pool_of(task.tenant)
        return {
            found.tenant
            for found in self._tables.tasks.values()
            if found.tenant != task.tenant
            and found.capability == task.capability
            and self._places.pool_of(found.tenant) == pool
            and _is_plain(found)
            and self._tables.could_run(found, self._tables.at_ms)
        }

    def _share(self, tenant: str) -> tuple[bool, float]:
        """What it has in flight for its weight; below its guaranteed minimum, less than any."""
        key = f"tenant/{tenant}"
        limit, in_use = self._tables.purse.limit(key), self._tables.purse.in_use[key]
        return in_use >= (limit.get("guaranteed") or 0), in_use / (limit.get("weight") or 1.0)


def _is_plain(task: CheckedTask) -> bool:
    """Whether it asks for nothing but a place."""
    return not (task.terms.keys() & {"needs", "budgets", "units"} or task.errors)
