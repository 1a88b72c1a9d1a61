"""Folds a journal in a process of its own: `python -m tests.simulation.refold FILE EVERY`.

FILE: one message a line, as JSON `[seq, at_ms, subject, data in base64]`. Prints the digest of the
state after every so many messages, one a line.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from callboard_broker.subjects import Subjects
from callboard_router.fold import apply
from callboard_router.snapshot import digest
from callboard_router.state import State
from tests.simulation.server import Stored

__all__ = ["digests", "written"]


def written(journal: list[Stored]) -> str:
    """The journal as the lines of a file."""
    lines = [
        json.dumps([*record[:3], base64.b64encode(record.data).decode()]) for record in journal
    ]
    return "\n".join(lines)


def digests(lines: str, *, every: int) -> list[str]:
    """The digest of the state after every so many messages."""
    state, subjects, found = State(), Subjects(), []
    for line in lines.splitlines():
        seq, at_ms, subject, data = json.loads(line)
        apply(state, subjects, seq, at_ms, (subject, base64.b64decode(data)))
        state.fresh.clear()
        if seq % every == 0:
            found.append(digest(state))
    return found


if __name__ == "__main__":
    print("\n".join(digests(Path(sys.argv[1]).read_text(), every=int(sys.argv[2]))))
