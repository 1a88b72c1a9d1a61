"""What a workflow undoes before it ends without success, in the router's order.

The last element to succeed is undone first, one after the other; the journal names an undo by its
number only, so which element it undoes is worked out from that.
"""

from __future__ import annotations

from callboard_broker.graph import UNDO
from callboard_ledger.rows import Flow, Task

__all__ = ["next_undo", "to_undo", "undos_of"]


def to_undo(flow: Flow) -> list[Task | Flow]:
    """The elements that have succeeded and that something undoes, the first to be undone first."""
    done = [row for row in flow.rows.values() if row.state == "succeeded" and row.end_seq]
    done = [row for row in done if row.step in flow.steps and flow.steps[row.step].plan.undo]
    return sorted(done, key=lambda row: row.end_seq or 0, reverse=True)


def undos_of(flow: Flow) -> list[Task | Flow]:
    """What has undone something since the workflow was last begun, in order."""
    undos = [row for row in flow.rows.values() if row.step == UNDO]
    return sorted(
        (row for row in undos if row.generation == flow.generation), key=lambda row: row.idx or 0
    )


def next_undo(flow: Flow) -> str:
    """The capability of the next undo; empty if there is nothing to undo."""
    left = to_undo(flow)[len(undos_of(flow)) :]
    return flow.steps[left[0].step or ""].plan.undo if left else ""
