"""Reads a projection back: where it is, the rows that an event may still change, and any others.

It asks page by page, each a call of one function, so that it works through an API that cuts long
answers off. What was parked is read from where it is parked: the fold must not miss it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from callboard_broker.rule import DEAD_WINDOW_MS, MAX_DEAD, MAX_DEAD_FLOWS
from callboard_ledger.allocations import Allocation
from callboard_ledger.book import element_key
from callboard_ledger.budgets import Account
from callboard_ledger.performance import FailureKey, FailureTally, PerformanceKey, Tally
from callboard_ledger.projection.documents import (
    command_of,
    flow_of,
    merge_of,
    schedule_of,
    task_of,
)
from callboard_ledger.projection.holdings import (
    account_of,
    allocation_of,
    failure_of,
    figure_of,
)
from callboard_ledger.projection.target import Target
from callboard_ledger.rows import Changes, CommandRow, Flow, Merge, Schedule, Task
from callboard_ledger.store import Query

__all__ = ["Found", "TargetReader"]

_PAGE = 500
_AT_ONCE = 100  # workflows whose elements one question asks for
_LIVE = ["waiting", "running"]
_HOPS = 8
_MOST_PARKED = 10_000

Found = Task | Flow | Schedule | CommandRow


class TargetReader:
    """One journal's projection. Every call raises `TargetAway`, `TargetRefused`."""

    def __init__(self, target: Target, stream: str) -> None:
        self._target = target
        self.stream = stream
        self._parked: dict[str, dict[int, dict[str, Any]]] | None = None

    @staticmethod
    async def streams(target: Target, board: str) -> list[dict[str, Any]]:
        """The journals of a board that were projected there, the one written last first."""
        found = await _find(target, {"kind": "stream", "board": board, "most": _PAGE})
        return list(found)

    async def head(self) -> Changes:
        """The position and what belongs to it, without rows; zeros if there is none."""
        rows = await _find(self._target, {"kind": "stream", "stream": self.stream, "most": 1})
        row = rows[0] if rows else {}
        return Changes(
            position=row.get("position", 0),
            at_ms=row.get("at", 0),
            epoch=row.get("epoch", 0),
            void=row.get("void", 0),
            malformed=row.get("malformed", 0),
        )

    async def load(self) -> Changes:
        """What `Store.load` gives: the position, and every row that an event may still change."""
        head = await self.head()
        secrets = {row["seq"]: row async for row in self._pages("secret", {})}
        flows = await self._flows()
        tasks = [
            task_of(row, secrets.get(row["seq"], {}))
            async for row in self._pages("task", {"states": _LIVE})
        ]
        alone = {"alone": True}
        dead = await self._dead("task", alone, MAX_DEAD)
        tasks += [task_of(row, secrets.get(row["seq"], {})) for row in dead]
        known = {task.seq for task in tasks}
        names = [flow.id for flow in flows]
        for start in range(0, len(names), _AT_ONCE):
            wanted = {"flows": names[start : start + _AT_ONCE], "steps": True}
            async for row in self._pages("task", wanted):
                if row["seq"] not in known:
                    tasks.append(task_of(row, secrets.get(row["seq"], {})))
        held = [allocation_of(row) async for row in self._pages("attempt", {"held": True})]
        return Changes(
            allocations=held,
            accounts=await self.accounts(),
            position=head.position,
            at_ms=head.at_ms,
            epoch=head.epoch,
            void=head.void,
            malformed=head.malformed,
            tasks=await self._with_parked("task", tasks),
            flows=flows,
            schedules=await self._with_parked(
                "schedule",
                [schedule_of(r) async for r in self._pages("schedule", {"states": ["waiting"]})],
            ),
            commands=await self._with_parked(
                "command",
                [command_of(r) async for r in self._pages("command", {"states": ["waiting"]})],
            ),
        )

    async def every(self) -> AsyncIterator[Task | Flow | Schedule | CommandRow | Merge]:
        """Every row, whether it may still change or not; workflows first."""
        for kind in ("flow", "schedule", "command", "merge"):
            parked = dict((await self._all_parked()).get(kind, {}))
            async for columns in self._pages(kind, {}):
                yield _ROWS[kind](parked.pop(columns["seq"], columns))
            for columns in parked.values():
                yield _ROWS[kind](columns)
        secrets = {row["seq"]: row async for row in self._pages("secret", {})}
        parked = dict((await self._all_parked()).get("task", {}))
        async for columns in self._pages("task", {}):
            kept = parked.pop(columns["seq"], None)
            yield task_of(kept) if kept else task_of(columns, secrets.get(columns["seq"], {}))
        for columns in parked.values():
            yield task_of(columns)

    async def allocations(self) -> AsyncIterator[Allocation]:
        """What attempts hold and have held."""
        async for columns in self._pages("attempt", {}):
            yield allocation_of(columns)

    async def accounts(self) -> list[Account]:
        """Every budget, by its key."""
        return [account_of(columns) async for columns in self._skipping("budget")]

    async def figures(self) -> AsyncIterator[tuple[PerformanceKey, Tally]]:
        """The performance of every hour."""
        async for columns in self._skipping("performance"):
            yield figure_of(columns)

    async def failures(self) -> AsyncIterator[tuple[FailureKey, FailureTally]]:
        """Every kind of failures."""
        async for columns in self._skipping("failure"):
            yield failure_of(columns)

    async def find(self, query: Query) -> list[Task | Flow | Schedule]:
        """The rows that `query` asks for, the newest first; see `Store.find`."""
        kinds = [query.kind] if query.kind else ["task", "flow", "schedule"]
        asked: dict[str, Any] = {
            "tenant": query.tenant,
            "flow": query.flow,
            "capability": query.capability,
            "name": query.name,
            "before": query.before,
            "states": None if query.state is None else [query.state],
        }
        if query.dead:
            asked["states"] = [s for s in ("failed", "expired") if query.state in (None, s)]
        found: list[Task | Flow | Schedule] = []
        for kind in kinds:
            if kind == "flow" and query.capability is not None:
                continue
            if kind != "flow" and query.name is not None:
                continue
            if kind == "schedule" and (query.flow is not None or query.dead):
                continue
            wanted = {name: value for name, value in asked.items() if value is not None}
            found += [_ROWS[kind](r) for r in await self._ask(kind, wanted, query.limit)]
        found.sort(key=lambda row: row.seq, reverse=True)
        found = found[: query.limit]
        for row in found:
            if isinstance(row, Flow):
                await self._fill(row)
        return found

    async def row(self, row_id: str) -> Found | None:
        """What has this id, or what it repeats; a live workflow with its elements."""
        for _ in range(_HOPS):
            for kind in ("task", "flow", "schedule"):
                rows = await self._ask(kind, {"id": row_id}, 1)
                if rows:
                    found: Found = _ROWS[kind](rows[0])
                    if isinstance(found, Flow):
                        await self._fill(found)
                    return found
            if not row_id.isdecimal() or not row_id.isascii() or len(row_id) > 18:
                return None
            rows = await self._ask("command", {"seq": int(row_id)}, 1)
            if rows:
                return command_of(rows[0])
            rows = await self._ask("merge", {"seq": int(row_id)}, 1)
            if not rows:
                return None
            row_id = str(rows[0]["same_as"])
        return None

    async def parked(self, most: int = 100) -> list[dict[str, Any]]:
        """What the database refused, the newest first."""
        return await self._ask("parked", {}, most)

    # -- how it asks

    async def _flows(self) -> list[Flow]:
        """Workflows that live or can be resumed, each with the sub-workflows below it."""
        wanted = {"states": _LIVE, "roots": True}
        live = [flow_of(row) async for row in self._pages("flow", wanted)]
        dead = await self._dead("flow", {"roots": True}, MAX_DEAD_FLOWS)
        flows = [*live, *map(flow_of, dead)]
        around = [flow.id for flow in flows]
        while around:
            inside: list[Flow] = []
            for start in range(0, len(around), _AT_ONCE):
                wanted = {"flows": around[start : start + _AT_ONCE]}
                inside += [flow_of(row) async for row in self._pages("flow", wanted)]
            flows += inside
            around = [flow.id for flow in inside]
        return await self._with_parked("flow", flows)

    async def _dead(self, kind: str, more: dict[str, Any], most: int) -> list[dict[str, Any]]:
        """What can be started again, the oldest end first."""
        found: list[dict[str, Any]] = []
        before = 2**62
        while len(found) < most:
            page = await self._ask(kind, {**more, "ended_before": before}, _PAGE)
            found += page
            if len(page) < _PAGE:
                break
            before = page[-1]["end_seq"]
        found = found[:most]
        if found:
            oldest = found[0]["ended_at"] - DEAD_WINDOW_MS
            found = [row for row in found if row["ended_at"] > oldest]
        return found[::-1]

    async def _fill(self, flow: Flow) -> None:
        """Give a live workflow its elements: they say which gates are open."""
        if flow.ended:
            return
        async for row in self._pages("task", {"flows": [flow.id], "steps": True}):
            task = task_of(row)
            flow.rows[element_key(task.step, task.idx)] = task
        async for row in self._pages("flow", {"flows": [flow.id]}):
            inner = flow_of(row)
            flow.rows[element_key(inner.step, inner.idx)] = inner

    async def _with_parked(self, kind: str, rows: list[Any]) -> list[Any]:
        parked = (await self._all_parked()).get(kind, {})
        if not parked:
            return rows
        kept = [_ROWS[kind](columns) for columns in parked.values()]
        kept = [row for row in kept if _may_change(row)]
        return [*(row for row in rows if row.seq not in parked), *kept]

    async def _all_parked(self) -> dict[str, dict[int, dict[str, Any]]]:
        if self._parked is None:
            found: dict[str, dict[int, dict[str, Any]]] = {}
            for row in await self._ask("parked", {}, _MOST_PARKED):
                if row["kind"] in _ROWS:
                    document = base64.b16decode(row["doc"].removeprefix("\\x").upper())
                    found.setdefault(row["kind"], {})[row["seq"]] = msgspec.json.decode(document)
            self._parked = found
        return self._parked

    async def _pages(self, kind: str, wanted: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        after = -1
        while True:
            page = await self._ask(kind, {**wanted, "after": after}, _PAGE)
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            after = page[-1]["seq"]

    async def _skipping(self, kind: str) -> AsyncIterator[dict[str, Any]]:
        """Page by page of what has no sequence; whoever writes meanwhile disturbs it."""
        skip = 0
        while True:
            page = await self._ask(kind, {"skip": skip}, _PAGE)
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            skip += _PAGE

    async def _ask(self, kind: str, wanted: dict[str, Any], most: int) -> list[dict[str, Any]]:
        return await _find(
            self._target, {**wanted, "kind": kind, "stream": self.stream, "most": most}
        )


def _may_change(row: Any) -> bool:
    """Whether an event may: it has not succeeded, or stays with the workflow around it."""
    if row.state != "succeeded":
        return True
    inside = isinstance(row, Task | Flow) and row.flow is not None and row.step is not None
    return inside and not (isinstance(row, Task) and row.scheduled)


_ROWS: dict[str, Any] = {
    "task": task_of,
    "flow": flow_of,
    "schedule": schedule_of,
    "command": command_of,
    "merge": merge_of,
}


async def _find(target: Target, question: dict[str, Any]) -> list[dict[str, Any]]:
    found = await target.call("callboard_find", msgspec.json.encode(question).decode())
    return list(found)
