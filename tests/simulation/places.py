"""The checker's own view of the hosts: whether there is a place where a task could run now.

What a host has free follows from the outside table of starts and from the outcomes in the journal.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.fitting import misfit
from tests.simulation.tables import CheckedTask, Tables
from tests.simulation.work import Serves

__all__ = ["Places"]


class Places:
    """hosts: what each serves. starts: the host of every attempt that began."""

    def __init__(
        self,
        tables: Tables,
        pools: Mapping[str, str],
        starts: Mapping[tuple[str, int], tuple[str, str, float]],
    ) -> None:
        self.hosts: dict[str, Serves] = {}
        self._tables = tables
        self._pools = pools
        self._starts = starts

    def pool_of(self, tenant: str) -> str:
        """Where the tenant's tasks run."""
        return self._pools.get(tenant, "shared")

    def is_free_for(self, task: CheckedTask) -> bool:
        """Whether a host has a slot for it; if the task asks for more, whether all are idle."""
        pool = self.pool_of(task.tenant)
        queue = self._queue_of(task, pool)
        needs = task.terms.get("needs", {})
        fitting = [
            name
            for name, serves in self.hosts.items()
            if serves.pool == pool
            and queue in serves.capabilities
            and misfit(needs, name, serves.disk) is None
        ]
        busy = self._busy()
        if needs or task.errors:
            return bool(fitting) and not any(busy.get(name) for name in fitting)
        return any(busy.get(name, []).count(queue) < self.hosts[name].slots for name in fitting)

    def _queue_of(self, task: CheckedTask, pool: str) -> str | None:
        """Its own capability, or the nearest one above that anybody serves."""
        served = {
            name
            for serves in self.hosts.values()
            if serves.pool == pool
            for name in serves.capabilities
        }
        name = task.capability
        while name not in served and "." in name:
            name = name.rpartition(".")[0]
        return name if name in served else None

    def _busy(self) -> dict[str, list[str | None]]:
        """The queues that running attempts came from, by host."""
        busy: dict[str, list[str | None]] = {}
        for task in self._tables.tasks.values():
            began = self._starts.get((task.id, task.attempt))
            if task.state == "running" and began is not None:
                queue = self._queue_of(task, self.pool_of(task.tenant))
                busy.setdefault(began[0], []).append(queue)
        return busy
