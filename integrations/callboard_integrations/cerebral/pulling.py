"""Posts pending rows of the tracker as tasks: claimed in the database first, posted by that claim.

A claim is the key of the post. So two pullers, or one that died between the claim and the post,
make one workflow of it; and the mirror finds the rows again by the names of the steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from callboard_broker.client import Board
from callboard_broker.errors import BadInput, TargetRefused
from callboard_integrations.cerebral.names import Names, step_of
from callboard_integrations.cerebral.pending import Group, PendingRow, decide, read_row
from callboard_integrations.cerebral.target import Tables
from callboard_ledger.projection.target import Target, refuses_rows

__all__ = ["Pulled", "Puller"]

_PAGE = 100
_WINDOW = 1_000
"""Rows that are held at the same time."""


@dataclass(slots=True)
class Pulled:
    """What became of a tenant's pending rows. posted: the step that works on each. waiting and
    refused: why, by the row's id."""

    tenant: str
    posted: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class Puller:
    """capability: of rows that name none."""

    def __init__(
        self,
        board: Board,
        target: Target,
        tables: Tables,
        names: Names,
        *,
        capability: str | None = None,
    ) -> None:
        self._board = board
        self._target = target
        self._tasks = tables.tasks
        self._names = names
        self._capability = capability

    async def pull(self, tenant: str) -> Pulled:
        """Post what can be posted of a tenant's rows.

        Raises `TargetAway`, `TargetRefused`, `BoardUnreachable`, `Overloaded`; what was claimed by
        then is posted by the next pull.
        """
        pulled = Pulled(tenant)
        async for rows in self._windows(pulled):
            states = await self._states(tenant, rows)
            decided = decide(rows, states, most_bytes=2 * self._board.options.post_bytes)
            pulled.waiting |= decided.waiting
            pulled.refused |= decided.refused
            for group in decided.groups:
                await self._post(pulled, group)
        return pulled

    async def _post(self, pulled: Pulled, group: Group) -> None:
        ids = [row.id for row in group.rows]
        try:
            if group.is_new and not await self._mark(pulled.tenant, group, {"claim": group.claim}):
                why = "for another pull, which has claimed one of these"
                pulled.waiting |= dict.fromkeys(ids, why)
                return
            handle = await self._board.run(group.run, tenant=pulled.tenant, key=group.claim)
            await self._mark(pulled.tenant, group, {"posted": handle.id})
        except BadInput as error:
            pulled.refused |= dict.fromkeys(ids, str(error))
        except TargetRefused as error:
            if not refuses_rows(error):
                raise
            pulled.refused |= dict.fromkeys(ids, f"the tracker refuses the claim: {error}")
        else:
            pulled.posted |= {row: f"{handle.id}.{step_of(row)}" for row in ids}

    async def _windows(self, pulled: Pulled) -> AsyncIterator[list[PendingRow]]:
        """All pending rows, so many at a time that memory is bounded; one that depends on a row of
        a later window waits until that is completed. Those of a post that was broken off come last
        and together: they are one workflow, wherever they are by now."""
        rows: list[PendingRow] = []
        claimed: list[PendingRow] = []
        page: list[dict[str, Any]] = []
        after: str | None = None
        while after is None or len(page) == _PAGE:
            page = await self._find(pulled.tenant, after=after, most=_PAGE)
            for found in page:
                try:
                    row = read_row(_columns(found), self._capability)
                    (claimed if row.claim else rows).append(row)
                except (BadInput, RecursionError) as error:
                    pulled.refused[str(found["id"])] = str(error)
            after = str(page[-1]["id"]) if page else ""
            if len(rows) >= _WINDOW:
                yield rows
                rows = []
        yield rows
        yield claimed

    async def _states(self, tenant: str, rows: Sequence[PendingRow]) -> dict[str, str]:
        """How the rows stand on which these depend."""
        wanted = list(dict.fromkeys(other for row in rows for other in row.before))
        states: dict[str, str] = {}
        for start in range(0, len(wanted), _PAGE):
            states |= await self._find(tenant, ids=wanted[start : start + _PAGE])
        return states

    async def _find(self, tenant: str, **question: object) -> Any:
        return await self._call("callboard_cerebral_find", tenant, question)

    async def _mark(self, tenant: str, group: Group, marks: dict[str, object]) -> bool:
        """Note it in the rows. A claim is for all of them or for none; whether it holds."""
        noted = {"board": self._board.options.prefix, "status": "pending", **marks}
        batch: dict[str, object] = {
            "ids": [row.id for row in group.rows],
            "claim": group.claim,
            "marks": noted,
        }
        return bool(await self._call("callboard_cerebral_mark", tenant, batch))

    async def _call(self, function: str, tenant: str, fields: dict[str, object]) -> Any:
        whose = {"tasks": self._tasks, "tenant": self._names.tenant(tenant)}
        document = {**whose, "board": self._board.options.prefix, **fields}
        return await self._target.call(function, msgspec.json.encode(document).decode())


def _columns(found: Mapping[str, Any]) -> dict[str, Any]:
    """A row as `callboard_cerebral_find` gives it. Raises `BadInput`, `RecursionError`."""
    if "row" not in found:
        return dict(found)
    try:
        columns: dict[str, Any] = msgspec.json.decode(found["row"])
    except msgspec.MsgspecError as error:
        raise BadInput("row", f"cannot be read: {error}") from error
    return {**columns, "id": found["id"]}
