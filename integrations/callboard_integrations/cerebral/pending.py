"""Which pending rows of the tracker can be posted, and as which workflows: a pure decision.

Rows that depend on each other are posted together, as one workflow. A row waits while what it
depends on is not completed; one that can never be posted is refused by name and stops no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec
from msgspec import Raw

from callboard_broker.bounds import check_size
from callboard_broker.errors import BadInput
from callboard_broker.graph import chart
from callboard_broker.subjects import Subjects
from callboard_broker.wire import FlowRun, Step, encode
from callboard_integrations.cerebral.names import source_of, step_of
from callboard_integrations.cerebral.standing import importance

__all__ = ["MOST_ROWS", "Decided", "Group", "PendingRow", "decide", "read_row"]

MOST_ROWS = 500
"""Rows that may depend on each other; they are one workflow."""

_MOST_BEFORE = 100
_CLAIM = "cerebral:"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRow:
    """A row of the tracker that is not Callboard's. claim: of a post that was broken off."""

    id: str
    title: str
    capability: str
    payload: bytes
    priority: int = 5
    before: tuple[str, ...] = ()
    claim: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that are posted as one workflow. claim: the key of the post, which makes it once."""

    claim: str
    rows: tuple[PendingRow, ...]
    run: FlowRun

    @property
    def is_new(self) -> bool:
        """Whether nobody has claimed them yet."""
        return self.rows[0].claim is None


@dataclass(slots=True)
class Decided:
    """refused, waiting: why, by the row's id."""

    groups: list[Group] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def read_row(columns: Mapping[str, Any], capability: str | None) -> PendingRow:
    """A row as the database gives it. capability: of rows that name none. Raises `BadInput`."""
    row = str(columns["id"])
    if "too_large" in columns:
        raise BadInput("row", f"has {columns['too_large']} bytes; at most 262,144")
    if source_of(step_of(row)) is None:
        raise BadInput("id", "must be a UUID, or up to 49 of a-z, 0-9, - and _")
    metadata = columns.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise BadInput("metadata", "must be an object")
    named = metadata.get("capability", capability)
    if not isinstance(named, str) or not named:
        raise BadInput("metadata.capability", "is missing, and cerebral.capability is not set")
    Subjects().task("default", named)
    before = columns.get("dependencies", metadata.get("dependencies")) or []
    if not isinstance(before, list) or not all(isinstance(one, str) for one in before):
        raise BadInput("dependencies", "must be a list of ids")
    if len(before) > _MOST_BEFORE:
        raise BadInput("dependencies", f"are {len(before)}; at most {_MOST_BEFORE}")
    own = metadata.get("callboard") or {}
    return PendingRow(
        id=row,
        title=str(columns.get("title") or row),
        capability=named,
        payload=msgspec.json.encode(metadata.get("payload", _payload(columns, metadata))),
        priority=importance(columns.get("priority")),
        before=tuple(dict.fromkeys(before)),
        claim=own.get("claim") if isinstance(own, dict) else None,
    )


def decide(rows: Sequence[PendingRow], states: Mapping[str, str], *, most_bytes: int) -> Decided:
    """What to post. states: of the rows that others depend on, by id; of this tenant alone.
    most_bytes: of a workflow."""
    decided = Decided()
    left = {row.id: row for row in rows}
    for claim in dict.fromkeys(row.claim for row in rows if row.claim):
        claimed = [row for row in rows if row.claim == claim]
        for row in claimed:
            del left[row.id]
        _take(decided, claimed, claim, most_bytes)
    _take_out_circles(decided, left)
    _leave_out(decided, left, states)
    for group in _parts(left):
        _take(decided, group, f"{_CLAIM}{min(row.id for row in group)}", most_bytes)
    return decided


def _payload(columns: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    names = ("title", "description", "acceptance_criteria", "bmad_story_id", "priority")
    found = {name: columns[name] for name in names if columns.get(name) is not None}
    more = {name: value for name, value in metadata.items() if name != "callboard"}
    return {"task_id": str(columns["id"]), **found, "metadata": more}


def _leave_out(decided: Decided, left: dict[str, PendingRow], states: Mapping[str, str]) -> None:
    """Take out of `left` what cannot be posted now, and whatever depends on it."""
    while True:
        out: list[str] = []
        for row in left.values():
            for other in row.before:
                if other in left or states.get(other) == "completed":
                    continue
                state = states.get(other)
                if state is None:
                    decided.refused[row.id] = f"depends on {other}, which is no row of this tenant"
                elif state == "cancelled":
                    decided.refused[row.id] = f"depends on {other}, which is cancelled"
                else:
                    decided.waiting[row.id] = f"for {other}, which is {state}"
                out.append(row.id)
                break
        if not out:
            return
        for name in out:
            del left[name]


def _take_out_circles(decided: Decided, left: dict[str, PendingRow]) -> None:
    """Rows that depend on themselves, each circle by name."""
    while True:
        graph = {row.id: [one for one in row.before if one in left] for row in left.values()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1][::-1]  # it names what comes before first
            why = f"dependencies go round in a circle: {' -> '.join(circle[:20])}"
            for row in set(circle):
                decided.refused[row] = why
                del left[row]
        else:
            return


def _parts(left: Mapping[str, PendingRow]) -> Iterable[list[PendingRow]]:
    """Rows that depend on each other, however far."""
    beside: dict[str, set[str]] = {name: set() for name in left}
    for row in left.values():
        for other in row.before:
            if other in left:
                beside[row.id].add(other)
                beside[other].add(row.id)
    while beside:
        name, around = beside.popitem()
        part = [name]
        while around:
            name = around.pop()
            around |= beside.pop(name, set()) - set(part)
            part.append(name)
        yield [left[name] for name in sorted(part)]


def _take(decided: Decided, rows: list[PendingRow], claim: str, most_bytes: int) -> None:
    try:
        if len(rows) > MOST_ROWS:
            raise BadInput("dependencies", f"tie {len(rows)} rows together; at most {MOST_ROWS}")
        run = _workflow(rows, claim)
        chart(run)
        check_size(encode(run), most_bytes, "workflow")
    except BadInput as error:
        decided.refused |= dict.fromkeys((row.id for row in rows), str(error))
        return
    decided.groups.append(Group(claim=claim, rows=tuple(rows), run=run))


def _workflow(rows: Sequence[PendingRow], claim: str) -> FlowRun:
    """Payloads go by the inputs, so that nothing in them is taken for a reference."""
    together = {row.id for row in rows}
    steps = [
        Step(
            id=step_of(row.id),
            capability=row.capability,
            payload=Raw(encode({"from": "inputs", "path": row.id})),
            after=[step_of(other) for other in row.before if other in together],
            priority=row.priority,
        )
        for row in rows
    ]
    inputs = msgspec.json.encode({row.id: Raw(row.payload) for row in rows})
    name = f"rows of the tracker: {rows[0].title}"[:128]
    return FlowRun(name=name, steps=steps, inputs=Raw(inputs), key=claim)
