"""What verifying may find, in words: which event, and what happened to it."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Finding", "FindingKind", "Findings"]

FindingKind = Literal[
    "event-changed",
    "event-missing",
    "event-moved",
    "event-inserted",
    "event-unseen",
    "events-replaced",
    "journal-replaced",
    "leaf-changed",
    "batch-changed",
    "batch-missing",
    "tree-broken",
    "tail-cut",
    "audit-cut",
    "audit-rewritten",
    "checkpoint-forged",
    "checkpoint-broken",
    "record-forged",
    "outcome-forged",
    "outcome-unsigned",
]

_SAY: dict[FindingKind, str] = {
    "event-changed": "altered since it was audited: event {}",
    "event-missing": "deleted: audited, and no longer there: event {}",
    "event-moved": "reordered: not in its place: event {}",
    "event-inserted": "inserted among audited events, and never audited: event {}",
    "event-unseen": "deleted before it could be audited: event {}",
    "events-replaced": "altered with their leaves, or replaced: not what was signed: event {}",
    "journal-replaced": "the whole journal was emptied or replaced: none of event {} is as audited",
    "leaf-changed": "altered in what was exported: the leaf of event {}",
    "batch-changed": "altered in AUDIT: batch {}",
    "batch-missing": "deleted from AUDIT: message {}",
    "tree-broken": "does not continue the tree before it: AUDIT batch {}",
    "tail-cut": "the tail was cut off: leaf {} of what was signed",
    "audit-cut": "the tail of AUDIT was cut off: checkpoints kept outside know of leaf {}",
    "audit-rewritten": "AUDIT was written anew: not what was signed before: the first {} leaves",
    "checkpoint-forged": "no key that was given has signed it: checkpoint of {} leaves",
    "checkpoint-broken": "a signed checkpoint states another tree: the one of {} leaves",
    "record-forged": "no key that was given has signed it: AUDIT record {}",
    "outcome-forged": "not signed by the host that it names: outcome {}",
    "outcome-unsigned": "not signed, though its host signs what it says: outcome {}",
}
_LOOK_BACK = 4


class Finding(msgspec.Struct, frozen=True):
    """What is wrong, from `first` to `last`: sequences of the journal, or of AUDIT for a batch or
    message, or numbers of leaves, as the text says."""

    kind: FindingKind
    first: int
    last: int
    text: str


class Findings:
    """Gathers them; neighbours of one kind become one range."""

    def __init__(self) -> None:
        self._found: list[tuple[FindingKind, int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, kind: FindingKind, first: int, last: int | None = None) -> None:
        last = first if last is None else last
        for index in range(len(self._found) - 1, max(-1, len(self._found) - _LOOK_BACK), -1):
            known, start, end = self._found[index]
            if known == kind and start <= first <= end + 1:
                self._found[index] = (kind, start, max(end, last))
                return
        self._found.append((kind, first, last))

    def drop(self, kinds: frozenset[FindingKind]) -> None:
        """Forget those of these kinds: one that says more takes their place."""
        self._found = [found for found in self._found if found[0] not in kinds]

    def told(self) -> list[Finding]:
        return [
            Finding(kind, first, last, _SAY[kind].format(_range(first, last)))
            for kind, first, last in self._found
        ]


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
