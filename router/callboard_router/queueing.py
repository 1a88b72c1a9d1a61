"""Which task is next: the tenant with the least in flight for its weight, and its oldest task.

A tenant below its guaranteed minimum comes before all others; what it does not use, others borrow.
Inside a tenant a level of priority is worth some seconds of waiting, so nothing waits for ever.
What is held up stands aside with everything that the same thing holds up (`parking`), and holds up
nothing else; so a decision costs the same however many tasks and tenants wait.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from callboard_broker.subjects import SHARED_POOL
from callboard_router.budget import Accounts, Reserved
from callboard_router.lanes import Books, Kind, Lane, Row, Tenant, keys_of
from callboard_router.parking import Parking
from callboard_router.state import Task

__all__ = ["Waiting"]

_MOST_KINDS = 64
"""Kinds of tasks that one tenant may make up before further ones are taken one by one."""

_SWEEP = 256


class Waiting:
    """The tasks that could be dispatched. ageing: seconds that one level of priority is worth.

    An entry is only a hint: whoever takes one checks the task's state, since an entry of a task
    that has gone meanwhile stays until it comes to the head. pools: of tenants that have their own.
    """

    def __init__(
        self, accounts: Accounts, *, ageing: float = 10.0, pools: Mapping[str, str] | None = None
    ) -> None:
        self._books = Books(accounts)
        self._ageing_ms = int(ageing * 1000)
        self._pools = {} if pools is None else pools
        self._turn = 0
        self._begin()

    def _begin(self) -> None:
        self._inside: set[str] = set()
        self._plain: dict[tuple[str, ...], Lane] = {}
        self._lanes: dict[Any, Lane] = {}
        self._kinds: dict[Any, Kind] = {}
        self._tenants: dict[str, Tenant] = {}
        self._parking = Parking()
        self._limits = self._books.accounts.limits
        self._places: tuple[object, int] = (None, 0)
        self._impossible: list[tuple[Lane, tuple[int, int, str]]] = []
        self._sweep_at = _SWEEP

    def __len__(self) -> int:
        return len(self._inside)

    @property
    def next_ms(self) -> int | None:
        """When the mere passing of time lets something go on that waits for a rate; else None."""
        return self._parking.next_ms

    def push(self, task: Task) -> None:
        """Queue the task, once."""
        name = task.id
        if name in self._inside:
            return
        self._inside.add(name)
        lane = None
        plain = task.terms is None and not task.avoid
        if plain:
            lane = self._plain.get(task.need.keys)
        if lane is None:
            lane = self._lane(task)
            if plain:
                self._plain[task.need.keys] = lane
        entry = (task.since - task.priority * self._ageing_ms, task.order, name)
        heapq.heappush(lane.tasks, entry)
        if lane.tasks[0] is entry:
            lane.show()

    def clear(self) -> None:
        """Forget everything."""
        self._begin()

    def freed(self) -> None:
        """The limits have changed: whatever is held up by one tries again."""
        self._limits = self._books.accounts.limits
        for tenant in self._tenants.values():
            tenant.entitle()
        self._parking.open_all()
        for kind in self._kinds.values():
            if kind.is_apart:
                kind.join()
        for tenant in self._tenants.values():
            tenant.show()
        again, self._impossible = self._impossible, []
        for lane, entry in again:
            heapq.heappush(lane.tasks, entry)
            lane.show()

    def look(self, reserved: Reserved, places: tuple[object, int], at_ms: int) -> None:
        """See what has changed since the last time. places: equal if no place has come or gone."""
        accounts, parking = self._books.accounts, self._parking
        if self._books.counts is not reserved.counts:
            self._books.counts = reserved.counts
        if self._limits is not accounts.limits:
            self.freed()
        for keys, real in ((reserved.freed, False), (accounts.freed, True)):
            if keys:
                for key in keys & self._tenants.keys():
                    tenant = self._tenants[key]
                    if tenant.has_less():
                        tenant.show()
                parking.freed(keys, self.has_room, places=real)
                keys.clear()
        if places[0] is not self._places[0] or places[1] != self._places[1]:
            self._places = places
            parking.places_changed()
        parking.take_due(at_ms)
        if len(self._lanes) > self._sweep_at:
            self._sweep()

    def head(self) -> Lane | None:
        """The lane whose first task is next."""
        opened = self._parking.open
        while True:
            first = opened.head()
            if first is not None and first.head is not None:
                return first.head.head
            if not self._parking.call():
                return None

    def take(self, lane: Lane, *, served: bool) -> None:
        """Take the lane's first task off. served: it is dispatched."""
        self._inside.discard(heapq.heappop(lane.tasks)[2])
        if served:
            self._turn += 1
            lane.row.tenant.turn = self._turn
        self._parking.tried(lane)

    def park(self, lane: Lane, reason: str, at_ms: int | None) -> None:
        """The lane's first task cannot be dispatched. at_ms: when time alone frees `reason`."""
        self._parking.park(lane, reason, at_ms)

    def set_aside(self, lane: Lane) -> None:
        """The lane's first task asks for more than there ever is: until the limits change."""
        self._impossible.append((lane, heapq.heappop(lane.tasks)))
        self._parking.tried(lane)

    def room(self, key: str) -> int:
        """How many tokens of this budget are free, as far as `look` knows; may be below 0."""
        accounts = self._books.accounts
        rule = accounts.rule(key)
        if rule is None:
            return sys.maxsize
        in_use = accounts.in_use.get(key, 0) + self._books.counts.get(key, 0)
        return rule.concurrency - in_use

    def has_room(self, key: str) -> bool:
        """Whether a token of this budget is free, as far as `look` knows."""
        return self.room(key) > 0

    def lanes(self) -> Iterator[tuple[tuple[str, str], str | None, int, str]]:
        """Yield ((pool, capability), what holds it up, how many tasks, the first one) of each."""
        for lane in self._lanes.values():
            if lane.tasks:
                row = lane.row
                kind = row.kind
                held_up = lane.parked or row.parked or kind.parked or row.tenant.parked
                yield (kind.key[0], kind.key[1]), held_up, len(lane.tasks), lane.tasks[0][2]

    # -- inside

    def _lane(self, task: Task) -> Lane:
        key = task.need.keys[1]
        tenant = self._tenants.get(key)
        if tenant is None:
            tenant = self._tenants[key] = Tenant(key, self._books, self._parking.open, self._turn)
        pool = self._pools.get(task.tenant, SHARED_POOL)
        crowded = len(tenant.rows) >= _MOST_KINDS
        kind_key, lane_key, alone = keys_of(task, pool, crowded=crowded)
        lane = self._lanes.get((key, kind_key, lane_key))
        if lane is not None:
            return lane
        kind = self._kinds.get(kind_key)
        if kind is None:
            kind = self._kinds[kind_key] = Kind(kind_key, self._parking.open)
        row = tenant.rows.get(kind)
        if row is None:
            row = tenant.rows[kind] = Row(kind, tenant)
        lane = self._lanes[(key, kind_key, lane_key)] = Lane(row, alone=alone)
        row.add(lane)
        return lane

    def _sweep(self) -> None:
        """Forget lanes that have become empty, and what is empty without them."""
        held = {lane for lane, _ in self._impossible}
        for key, lane in list(self._lanes.items()):
            if lane.tasks or lane in held:
                continue
            del self._lanes[key]
            lane.entry = None
            row = lane.row
            row.size -= 1
            if not row.size:
                row.entry = None
                del row.tenant.rows[row.kind], row.kind.members[row]
                row.tenant.apart.pop(row, None)
                if not row.kind.members:
                    row.kind.entry = None
                    self._parking.forget(row.kind)
                    del self._kinds[row.kind.key]
        self._plain = {key: lane for key, lane in self._plain.items() if lane.tasks}
        for name, tenant in list(self._tenants.items()):
            if not tenant.rows:
                tenant.entry = None
                del self._tenants[name]
        self._sweep_at = max(_SWEEP, 2 * len(self._lanes))
