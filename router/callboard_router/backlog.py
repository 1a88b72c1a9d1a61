"""What waits for agents, by the queue that its agents serve: the signal by which hosts are scaled.

What only a budget holds up is counted apart, since more hosts would not help it. Costs a look at
each lane (tasks of one tenant that nothing tells apart), not at each task.
"""

from __future__ import annotations

import msgspec

from callboard_router.budget import blocked
from callboard_router.desk import Desk
from callboard_router.hosts import Queue

__all__ = ["QueueBacklog", "backlog"]

_PLACES = ("agents", "slots", "fit")


class QueueBacklog(msgspec.Struct):
    """One queue. waiting: for a slot, an agent or their turn; held: for a budget. oldest_ms: how
    long the first one of `waiting` has waited. slots, hosts: offered by live ones."""

    pool: str
    capability: str
    waiting: int = 0
    held: int = 0
    oldest_ms: int = 0
    running: int = 0
    slots: int = 0
    hosts: int = 0


def backlog(desk: Desk, at_ms: int) -> list[QueueBacklog]:
    """Every queue that is served, or for which something waits. at_ms: the server's clock."""
    found: dict[Queue, QueueBacklog] = {}
    for queue, (slots, hosts) in desk.capacity.items():
        running = desk.state.running.get(queue, 0)
        found[queue] = QueueBacklog(*queue, running=running, slots=slots, hosts=hosts)
    for asked, parked, count, first in desk.agenda.waiting.lanes():
        queue = _serving(desk, asked)
        entry = found.get(queue)
        if entry is None:
            entry = found[queue] = QueueBacklog(*queue, running=desk.state.running.get(queue, 0))
        task = desk.state.tasks.get(first)
        reason = parked
        if parked is None and task is not None:  # nobody has looked: what all share may be taken
            reason = blocked(desk.state.accounts, desk.proposals.reserved, task.need, at_ms)
        if reason is not None and reason.partition("/")[0] not in _PLACES:
            entry.held += count
            continue
        entry.waiting += count
        if task is not None:
            entry.oldest_ms = max(entry.oldest_ms, at_ms - task.since)
    return list(found.values())


def _serving(desk: Desk, asked: Queue) -> Queue:
    """The queue whose agents work on it: its own, or the nearest one above that is served."""
    pool, capability = asked
    while capability:
        served = desk.capacity.get((pool, capability))
        if served is not None and served[0] > 0:
            return pool, capability
        capability = capability.rpartition(".")[0]
    return asked
