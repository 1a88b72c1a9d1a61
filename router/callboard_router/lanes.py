"""How waiting tasks are grouped: by what can hold them up.

A `Lane` holds tasks that nothing tells apart but their age; a `Row` the lanes of one tenant within
a kind; a `Kind` the rows of all tenants that the same queue and the same shared budgets hold up.
Each ranks what is in it, so the next task of all is the head of heads. As long as nothing holds a
kind up, its rows stand with their tenants, so that whatever changes a tenant's turn is one change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from callboard_router.budget import Accounts
from callboard_router.ranking import Rank, Ranking
from callboard_router.state import Task

__all__ = ["Books", "Entry", "Kind", "Lane", "Row", "Tenant", "keys_of"]

Entry = tuple[int, int, str]
"""(order_ms, order, id): when the task became ready, less what its priority is worth."""


@dataclass(slots=True)
class Books:
    """What runs, and what is under way (`Reserved.counts`), by budget."""

    accounts: Accounts
    counts: dict[str, int] = field(default_factory=dict)


class Tenant:
    """A tenant that has, or had, something waiting.

    key: its budget's. turn: when it was served last. parked: the budget for which all of it waits.
    open: where it stands for all of its rows that nothing sets apart; apart: the other ones.
    """

    __slots__ = (
        "_books",
        "_high",
        "apart",
        "entry",
        "guaranteed",
        "head",
        "key",
        "open",
        "parked",
        "rows",
        "together",
        "turn",
        "weight",
    )

    def __init__(self, key: str, books: Books, place: Ranking[Any], turn: int) -> None:
        self.key = key
        self.rows: dict[Kind, Row] = {}
        self.together: Ranking[Row] = Ranking()
        self.apart: dict[Row, None] = {}
        self.head: Row | None = None
        self.entry: tuple[Rank, int, Any] | None = None
        self.open = place
        self.parked: str | None = None
        self.turn = turn
        self._books = books
        self._high = 0
        self.weight = 1.0
        self.guaranteed = 0
        self.entitle()

    def entitle(self) -> None:
        """Look up what it may expect where several compete."""
        limit = self._books.accounts.limit_of(self.key.removeprefix("tenant/"))
        self.weight = limit.weight or 1.0
        self.guaranteed = limit.guaranteed or 0

    def rank_of(self, order_ms: int) -> Rank:
        """Of a task of its: below its guaranteed minimum first, then by capacity in flight for its
        weight; of one tenant, by the order of the tasks.
        """
        books, key = self._books, self.key
        in_flight = books.accounts.in_use.get(key, 0) + books.counts.get(key, 0)
        if in_flight > self._high:  # noqa: PLR1730 - max() takes twice as long, here of all places
            self._high = in_flight
        return in_flight >= self.guaranteed, in_flight / self.weight, self.turn, order_ms

    def rank(self) -> Rank | None:
        if self.parked is not None:
            return None
        self.head = head = self.together.head()
        return None if head is None or head.entry is None else self.rank_of(head.entry[0][0])

    def has_less(self) -> bool:
        """Whether it has less in flight than when it was ranked."""
        books, key = self._books, self.key
        return books.accounts.in_use.get(key, 0) + books.counts.get(key, 0) < self._high

    def show(self) -> None:
        """It has less in flight than before, or does not wait any more."""
        if self.parked is None:
            self._high = 0
            rank = self.rank()
            if rank is not None:
                self.open.put(self, rank)
            for row in self.apart:
                row.rise()


class Lane:
    """Tasks of one tenant that nothing tells apart but their age.

    alone: what holds it up says nothing of its kind. parked: what it waits for.
    called_by: the group (`parking`) that lets it try.
    """

    __slots__ = ("alone", "called_by", "entry", "parked", "row", "tasks")

    def __init__(self, row: Row, *, alone: bool) -> None:
        self.row = row
        self.alone = alone
        self.tasks: list[Entry] = []
        self.entry: tuple[Rank, int, Any] | None = None
        self.parked: str | None = None
        self.called_by: str | None = None

    def rank(self) -> Rank | None:
        return None if self.parked is not None or not self.tasks else self.tasks[0]

    def is_up(self) -> bool:
        """Whether its first task will be tried before long."""
        return self.parked is None and bool(self.tasks) and self.row.is_up()

    def show(self) -> None:
        """It has another first task, or does not wait any more."""
        if self.parked is None and self.tasks:
            row = self.row
            if row.only is None:
                row.lanes.put(self, self.tasks[0])
            row.rise()


class Row:
    """The lanes of one tenant within a kind.

    size: how many it has. only: the one, as long as there is one. parked, called_by: as of a lane.
    """

    __slots__ = (
        "called_by",
        "entry",
        "head",
        "kind",
        "lanes",
        "only",
        "parked",
        "size",
        "tenant",
    )

    def __init__(self, kind: Kind, tenant: Tenant) -> None:
        self.kind = kind
        self.tenant = tenant
        self.lanes: Ranking[Lane] = Ranking()
        self.size = 0
        self.only: Lane | None = None
        self.head: Lane | None = None
        self.entry: tuple[Rank, int, Any] | None = None
        self.parked: str | None = None
        self.called_by: str | None = None
        kind.members[self] = None
        if kind.is_apart:
            tenant.apart[self] = None

    def add(self, lane: Lane) -> None:
        """Let the lane be one of it."""
        self.size += 1
        if self.size == 1:
            self.only = lane
        elif self.only is not None:
            first, self.only = self.only, None
            first.show()

    def rank(self) -> Rank | None:
        tenant, is_apart = self.tenant, self.kind.is_apart
        if self.parked is not None or (is_apart and tenant.parked is not None):
            return None
        head = self.only
        if head is None:
            head = self.lanes.head()
        elif head.parked is not None or not head.tasks:
            head = None
        self.head = head
        if head is None:
            return None
        first = head.tasks[0]
        return tenant.rank_of(first[0]) if is_apart else first

    def is_up(self) -> bool:
        """Whether its first task will be tried before long."""
        up = self.parked is None and self.tenant.parked is None
        return up and self.entry is not None and self.kind.parked is None

    def rise(self) -> None:
        """It comes earlier than before, or does not wait any more."""
        rank = self.rank()
        if rank is None:
            return
        kind, tenant = self.kind, self.tenant
        if kind.is_apart:
            kind.rows.put(self, rank)
            kind.place.put(kind, rank)
        else:
            tenant.together.put(self, rank)
            if tenant.parked is None:
                tenant.open.put(tenant, tenant.rank_of(rank[0]))


class Kind:
    """The rows of all tenants that the same things hold up.

    place: the ranking it stands in, once something has held it up and so set it apart from what
    else its tenants have waiting. parked, called_by: as of a lane.
    """

    __slots__ = (
        "called_by",
        "entry",
        "head",
        "is_apart",
        "key",
        "members",
        "parked",
        "place",
        "rows",
    )

    def __init__(self, key: Any, place: Ranking[Any]) -> None:
        self.key = key
        self.place = place
        self.is_apart = False
        self.members: dict[Row, None] = {}
        self.rows: Ranking[Row] = Ranking()
        self.head: Row | None = None
        self.entry: tuple[Rank, int, Any] | None = None
        self.parked: str | None = None
        self.called_by: str | None = None

    def rank(self) -> Rank | None:
        self.head = head = self.rows.head()
        return None if head is None or head.entry is None else head.entry[0]

    def is_up(self) -> bool:
        """Whether its first task will be tried before long."""
        return self.entry is not None and self.parked is None

    def move(self, place: Ranking[Any]) -> None:
        """Stand there from now on, apart from what else its tenants have waiting."""
        self.place = place
        self.entry = None
        if not self.is_apart:
            self.is_apart = True
            for row in self.members:
                row.entry = None
                row.tenant.apart[row] = None
                rank = row.rank()
                if rank is not None:
                    self.rows.put(row, rank)
        rank = self.rank()
        if rank is not None:
            place.put(self, rank)

    def join(self) -> None:
        """Be no longer apart."""
        self.entry = self.parked = self.called_by = None
        self.is_apart = False
        for row in self.members:
            row.entry = None
            row.tenant.apart.pop(row, None)
            row.rise()


def keys_of(task: Task, pool: str, *, crowded: bool) -> tuple[Any, Any, bool]:
    """(kind, lane, alone) of a task.

    Of one kind are tasks of the same pool, capability, named budgets, units and requirements; in
    one lane those that also draw on the same budgets of a workflow. A task that asks for a certain
    host, or for none of some, is alone, and so is one of a tenant that has made up too many kinds
    (crowded): there a lane is what is held up by the same things.
    """
    own = tuple(key for key in task.need.keys[4:] if key.startswith("flow/"))
    terms = task.terms
    if terms is None or not (terms.needs or terms.budgets or terms.units):
        asks: tuple[Any, ...] = ()
    else:
        needs = b"" if terms.needs is None else msgspec.json.encode(terms.needs)
        asks = tuple(sorted(terms.budgets)), tuple(sorted(terms.units)), needs
    needs_of = None if terms is None else terms.needs
    stays = needs_of is not None and needs_of.stay_with is not None
    if stays or task.avoid or (needs_of is not None and needs_of.avoid) or (crowded and asks):
        flow = task.flow if stays else None
        return (pool, task.capability, None), (own, asks, tuple(task.avoid), flow), True
    return (pool, task.capability, asks), own, False
