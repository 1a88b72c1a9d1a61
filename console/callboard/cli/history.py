"""Shows what happened to a task: its attempts, what was asked of it, and how it ended."""

from __future__ import annotations

from callboard.cli.screen import Cell, Screen, clock_time, lasted, reason_of, state_text
from callboard_ledger.views import AttemptView, HistoryView

__all__ = ["show_history"]


def show_history(screen: Screen, history: HistoryView) -> None:
    """The tables of a history; nothing where there is none."""
    if history.attempts:
        screen.line()
        columns = ("attempt#", "state", "host", "dispatched", "took#", "what")
        screen.table(columns, map(_attempt, history.attempts), fold="what")
    if history.commands or history.ends:
        screen.line()
        rows: list[tuple[int, list[Cell]]] = []
        for command in history.commands:
            refused = f", refused: {command.error.message}" if command.error else ""
            said = f"{command.verb} {command.target}{refused}"
            why = f": {command.reason}" if command.reason else ""
            at = clock_time(command.posted_at)
            rows.append((int(command.id), [at, command.by or "someone", f"{said}{why}"]))
        for end in history.ends:
            what = f"{end.state} {reason_of(end.error)}".strip()
            rows.append((end.seq, [clock_time(end.at), "router", what]))
        rows.sort(key=lambda row: row[0])
        screen.table(("time", "by", "what"), [row for _, row in rows], fold="what")
    if not history.complete:
        screen.note("there was more: the journal does not go back to its beginning any more")


def _attempt(attempt: AttemptView) -> list[Cell]:
    what = attempt.reason or reason_of(attempt.error)
    if attempt.retry_at is not None:
        what = f"{what}; tried again from {clock_time(attempt.retry_at)}".lstrip("; ")
    return [
        attempt.attempt,
        state_text(attempt.state),
        attempt.host,
        clock_time(attempt.dispatched_at),
        lasted(attempt.started_at, attempt.ended_at),
        what,
    ]
