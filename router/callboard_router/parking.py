"""What waits, by the one thing that it waits for, and whose turn it is when that changes.

Of everything that waits for the same thing, one member at a time tries again, the one whose turn it
is; when it fails for the same reason, the others need not try. So whatever is freed costs the work
of those that can use it, and not of those that wait.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from callboard_router.lanes import Kind, Lane, Row, Tenant
from callboard_router.ranking import Ranking

__all__ = ["Group", "Parking"]

_PLACES = ("agents", "slots", "fit")
_FIT = "fit"
"""Each of those that wait for it asks for something else: one's failure says nothing of others."""

_ALONE = " alone"

_TRIES = 64
_TRIES_EACH = 4
"""How many of those try again when the agents are counted, and when one has room again."""


class Group:
    """All that waits for one thing, which something of the budget `key` may free.

    called: the one that tries. tries: failures until all rest.
    all_alike: if one fails, so would every other. members: its kinds; ranked: those of them that
    could go on. others: rows and lanes that wait on their own account.
    """

    __slots__ = ("all_alike", "called", "key", "members", "others", "ranked", "tries")

    def __init__(self, key: str, *, all_alike: bool) -> None:
        self.key = key
        self.all_alike = all_alike
        self.members: dict[Kind, None] = {}
        self.ranked: Ranking[Kind] = Ranking()
        self.others: deque[Row | Lane] = deque()
        self.called: Kind | Row | Lane | None = None
        self.tries = 0

    def next(self) -> Kind | Row | Lane | None:
        """Take out whose turn it is."""
        head = self.ranked.head()
        if head is not None:
            del self.members[head]
            return head
        while self.others:
            member = self.others.popleft()
            if isinstance(member, Row) or member.tasks:
                return member
            member.parked = None
        return None


class Parking:
    """The groups. open: all that wait for nothing but their turn."""

    def __init__(self) -> None:
        self.open: Ranking[Tenant | Kind] = Ranking()
        self._groups: dict[str, Group] = {}
        self._whole: dict[str, list[Tenant | Row]] = {}
        self._by_key: dict[str, dict[str, None]] = {}
        self._places: dict[str, None] = {}
        self._hot: dict[str, Group] = {}
        self._due: list[tuple[int, str]] = []
        self._due_at: dict[str, int] = {}

    @property
    def next_ms(self) -> int | None:
        """When the passing of time lets something go on."""
        return self._due[0][0] if self._due else None

    def park(self, lane: Lane, reason: str, at_ms: int | None) -> None:
        """`reason` holds up the lane's head, and all that it must hold up as well.

        at_ms: when time alone may have changed that.
        """
        name = reason.rpartition(" of ")[2]
        units = reason.startswith("units ")
        if at_ms is not None and at_ms < self._due_at.get(reason, at_ms + 1):
            self._due_at[reason] = at_ms
            heapq.heappush(self._due, (at_ms, reason))
        row = lane.row
        if name.startswith("tenant/") and not (units and lane.alone):
            whole = row.tenant if name.count("/") == 1 and not units else row
            whole.parked = reason
            self._whole.setdefault(reason, []).append(whole)
            self._by_key.setdefault(name, {})[reason] = None
            self.tried(lane)
            return
        where = name.partition("/")[0]
        if where in _PLACES:  # another capability may find another queue when agents have come
            reason = f"{reason} {row.kind.key[1]}{_ALONE if lane.alone else ''}"
        self.tried(lane, reason)
        group = self._group(reason, name, where)
        if lane.alone or where == "flow":
            lane.parked = reason
            group.others.append(lane)
        elif group.all_alike:
            row.kind.parked = reason
            group.members[row.kind] = None
            row.kind.move(group.ranked)
        else:
            row.parked = reason
            group.others.append(row)

    def tried(self, lane: Lane, reason: str | None = None) -> None:
        """The lane's head was taken, or cannot be, for this reason."""
        if reason is not None and (group := self._hot.get(reason)) is not None:
            group.tries -= reason in (lane.called_by, lane.row.called_by)
            if group.all_alike or group.tries <= 0:
                del self._hot[reason]
        row = lane.row
        kind = row.kind
        if lane.called_by is None and row.called_by is None and kind.called_by is None:
            return
        for member in (lane, row, kind):
            if member.called_by is not None:
                called_by, member.called_by = member.called_by, None
                group = self._hot.get(called_by)
                if group is not None and group.called is member:
                    self._call(called_by, group)

    def call(self) -> bool:
        """Let those try whose turn it is; whether there are any that did not already."""
        found = False
        for reason, group in list(self._hot.items()):
            called = group.called
            if called is None or called.called_by != reason or not called.is_up():
                found = self._call(reason, group) or found
        return found

    def freed(self, keys: set[str], has_room: Callable[[str], bool], *, places: bool) -> None:
        """Something of these budgets was given back. places: and with it a place in a queue."""
        known = self._by_key
        if not known:
            return
        for key in keys & known.keys():
            self._freed(key, has_room, places=places)
        if places and self._places:
            for key in keys:
                if key.startswith("capability/"):
                    while "." in key:
                        key = key.rpartition(".")[0]  # noqa: PLW2901 - an ancestor's queue, maybe
                        if key in known:
                            self._freed(key, has_room, places=True)

    def places_changed(self) -> None:
        """Agents have come or gone, or a second's worth of work was done."""
        for reason in list(self._places):
            self._warm(reason, _TRIES)
        self.call()

    def take_due(self, at_ms: int) -> None:
        """Time has passed."""
        while self._due and self._due[0][0] <= at_ms:
            due_ms, reason = heapq.heappop(self._due)
            if self._due_at.get(reason) == due_ms:
                del self._due_at[reason]
                self._warm(reason)

    def open_all(self) -> None:
        """Whatever waits for something tries again, but for kinds, which must `join`."""
        for reason in list(self._whole):
            self._warm(reason)
        for group in self._groups.values():
            for member in group.others:
                self._open(member)
        self._groups.clear()
        self._by_key.clear()
        self._places.clear()
        self._hot.clear()
        self._due.clear()
        self._due_at.clear()

    def forget(self, kind: Kind) -> None:
        """The kind has become empty."""
        group = self._groups.get(kind.parked or "")
        if group is not None:
            group.members.pop(kind, None)

    # -- inside

    def _group(self, reason: str, name: str, where: str) -> Group:
        group = self._groups.get(reason)
        if group is None:
            alike = where != _FIT and not reason.endswith(_ALONE)
            if where in _PLACES:
                self._places[reason] = None
                name = f"capability/{name.split('/', 2)[-1]}"
            group = self._groups[reason] = Group(name, all_alike=alike)
            self._by_key.setdefault(name, {})[reason] = None
        return group

    def _freed(self, key: str, has_room: Callable[[str], bool], *, places: bool) -> None:
        for reason in list(self._by_key.get(key, ())):
            if reason in self._places:
                if places:
                    self._warm(reason)
            elif reason != key or has_room(key):
                self._warm(reason)

    def _warm(self, reason: str, tries: int = _TRIES_EACH) -> None:
        wholes = self._whole.pop(reason, ())
        if wholes and reason not in self._groups:
            self._unindex(reason.rpartition(" of ")[2], reason)
        for whole in wholes:
            whole.parked = None
            if isinstance(whole, Tenant):
                whole.show()
            else:
                whole.rise()
        group = self._groups.get(reason)
        if group is not None:
            group.tries = min(tries, len(group.others) + (group.called is not None))
            if reason not in self._hot:
                self._hot[reason] = group
                self._call(reason, group)

    def _call(self, reason: str, group: Group) -> bool:
        member = group.called = group.next()
        if member is not None:
            member.called_by = reason
            self._open(member)
            return True
        for kind in group.members:  # none of its tenants can use it now: ask when one can
            self._open(kind)
        del self._hot[reason], self._groups[reason]
        self._places.pop(reason, None)
        if reason not in self._whole:
            self._unindex(group.key, reason)
        return False

    def _unindex(self, key: str, reason: str) -> None:
        reasons = self._by_key.get(key)
        if reasons is not None:
            reasons.pop(reason, None)
            if not reasons:
                del self._by_key[key]

    def _open(self, member: Kind | Row | Lane) -> None:
        member.parked = None
        if isinstance(member, Kind):
            member.move(self.open)
        elif isinstance(member, Row):
            member.rise()
        else:
            member.show()
