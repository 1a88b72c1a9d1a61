"""Shows a replay of the journal: the state at a moment, or what happened to one task or workflow.

The fold is the ledger's. With `--json`, rows are printed as they end and those that are open last;
so a journal of any length is shown in the memory of what was open at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callboard.cli.reaching import link_to
from callboard.cli.screen import STATES, Cell, Screen, clock_time, state_text
from callboard.connecting import Place
from callboard_broker.errors import BadInput
from callboard_broker.rule import TaskState
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_ledger.replay import Moment, Replay, Replayed, replay
from callboard_ledger.views import FlowView, ScheduleView, TaskView

__all__ = ["Until", "replay_board"]

_SHOWN_OPEN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """Where a replay ends: with an event, or before the first one after a time (Unix ms)."""

    seq: int | None = None
    at_ms: int | None = None


async def replay_board(place: Place, screen: Screen, until: Until, *, about: str | None) -> None:
    """Replay the journal and show the result. about: the task or workflow whose story to tell.

    Raises `BadInput` if there is none of that id, `StreamMissing`, `BoardUnreachable`.
    """
    topology = Topology(Subjects(place.prefix))

    def ended(row: TaskView | FlowView | ScheduleView) -> None:
        if screen.json:
            screen.document(row)

    replaying = Replay(
        topology.subjects,
        until_seq=until.seq,
        until_ms=until.at_ms,
        about=about,
        ended=ended if about is None else None,
    )
    async with link_to(place, name="callboard replay") as connection:
        replayed = await replay(connection, topology, replaying)
    if about is not None:
        _show_story(screen, replayed, about, until)
    elif screen.json:
        for row in replayed.rows:
            screen.document(row)
        screen.document(_summary(replayed))
    else:
        _show_state(screen, replayed)


def _show_story(screen: Screen, replayed: Replayed, about: str, until: Until) -> None:
    if screen.json:
        for moment in replayed.timeline:
            screen.document(_event(moment))
    elif replayed.timeline:
        columns = ("event#", "time", "kind", "id", "by", "what")
        screen.table(columns, map(_told, replayed.timeline), fold="what")
    found = next((row for row in replayed.rows if row.id == about), None)
    if found is None:
        where = "" if until == Until() else " up to there"
        raise BadInput("id", f"the journal{where} has no task or workflow {about}")
    if screen.json:
        screen.document(found)


def _event(moment: Moment) -> dict[str, Any]:
    return {
        "kind": "event",
        "seq": moment.seq,
        "at": moment.at,
        "event": moment.kind,
        "id": moment.task,
        "actor": moment.actor,
        "verdict": moment.verdict,
        "what": moment.what,
    }


def _told(moment: Moment) -> list[Cell]:
    void = "" if moment.verdict == "accepted" else f" ({moment.verdict})"
    what = f"{moment.what}{void}".strip()
    return [moment.seq, clock_time(moment.at), moment.kind, moment.task, moment.actor, what]


def _every(counts: dict[TaskState, int]) -> dict[str, int]:
    return dict.fromkeys(STATES, 0) | counts


def _summary(replayed: Replayed) -> dict[str, Any]:
    return {
        "kind": "state",
        "position": replayed.position,
        "at": replayed.at,
        "void": replayed.void,
        "malformed": replayed.malformed,
        "tasks": _every(replayed.tasks),
        "workflows": _every(replayed.flows),
    }


def _show_state(screen: Screen, replayed: Replayed) -> None:
    screen.line(f"state at event {replayed.position}, {clock_time(replayed.at)}", "bold")
    tasks, flows = _every(replayed.tasks), _every(replayed.flows)
    rows: list[list[Cell]] = [[state_text(state), tasks[state], flows[state]] for state in STATES]
    screen.table(("state", "tasks#", "workflows#"), rows)
    if replayed.void or replayed.malformed:
        screen.line(f"{replayed.void} events void, {replayed.malformed} not to be read")
    live = [row for row in replayed.rows if isinstance(row, TaskView)]
    if live:
        screen.line()
        rows = [
            [task.id, state_text(task.state), task.capability, task.tenant, task.attempt]
            for task in live[:_SHOWN_OPEN]
        ]
        screen.table(("open", "state", "capability", "tenant", "attempt#"), rows)
        if len(live) > _SHOWN_OPEN:
            screen.line(f"and {len(live) - _SHOWN_OPEN} more; --json has them all")
