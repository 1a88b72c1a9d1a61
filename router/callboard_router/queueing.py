"""Which task is next: tenants by capacity in flight, inside a tenant by priority and age.

Only the heads of a tenant's queues are looked at, so a flood behind them costs nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from callboard_router.state import Task

__all__ = ["Waiting"]

_Entry = tuple[int, int, str]


class Waiting:
    """The tasks that could be dispatched, by tenant and capability.

    An entry is only a hint: whoever takes one checks the task's state, since an entry of a task
    that has gone meanwhile stays until it comes to the head.
    """

    def __init__(self) -> None:
        self._queues: dict[str, dict[str, list[_Entry]]] = {}
        self._inside: set[str] = set()

    def __len__(self) -> int:
        return len(self._inside)

    def push(self, task: Task) -> None:
        """Queue the task, once."""
        if task.id in self._inside:
            return
        self._inside.add(task.id)
        heap = self._queues.setdefault(task.tenant, {}).setdefault(task.capability, [])
        heapq.heappush(heap, (-task.priority, task.order, task.id))

    def tenants(self) -> Collection[str]:
        """Tenants that have something waiting."""
        return self._queues.keys()

    def best(self, tenant: str, open_capabilities: Collection[str]) -> tuple[str, str] | None:
        """(capability, id) of the tenant's next task where there is room; it stays queued."""
        queues = self._queues.get(tenant, {})
        few, many = sorted((queues.keys(), open_capabilities), key=len)
        heads = [(queues[name][0], name) for name in few if name in many]
        if not heads:
            return None
        entry, capability = min(heads)
        return capability, entry[2]

    def pop(self, tenant: str, capability: str) -> None:
        """Take the head off."""
        queues = self._queues[tenant]
        self._inside.discard(heapq.heappop(queues[capability])[2])
        if not queues[capability]:
            del queues[capability]
            if not queues:
                del self._queues[tenant]
