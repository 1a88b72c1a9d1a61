"""What the router has written but not yet read back: each proposal reserves what it would take.

A proposal counts until its event is read from the journal, and only then is it true. All proposals
of an epoch die together when a new epoch begins, because the server refuses whatever the old one
still had under way.
"""

from __future__ import annotations

from collections.abc import KeysView

import msgspec

from callboard_broker.wire import (
    Answered,
    Checkpoint,
    Dispatch,
    Entered,
    Epoch,
    Event,
    Expanded,
    Fired,
    Halted,
    Lost,
    Merged,
    Outcome,
    Quarantined,
    Retrying,
    Settled,
    Skipped,
    encode,
)
from callboard_router.budget import Need, Reserved
from callboard_router.hosts import HostKey, Queue
from callboard_router.tally import Tally

__all__ = ["Proposal", "Proposals", "key_of"]


class Proposal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A router event to be written, on condition that the epoch is still `guard`.

    attach: a payload or result too long for the event; it goes to the blob store first.
    """

    subject: str
    event: Event
    guard: int
    attach: bytes | None = None

    def data(self) -> bytes:
        """The event as it is stored."""
        return encode(self.event)


def key_of(event: Event) -> str | None:
    """What the event decides: of one key, one proposal is under way at a time."""
    if isinstance(event, Dispatch | Settled | Retrying | Skipped | Entered):
        return event.task
    if isinstance(event, Lost):
        return f"lost/{event.task}"
    if isinstance(event, Expanded):
        return f"expand/{event.task}/{event.step}"
    if isinstance(event, Merged | Answered):
        return f"answer/{event.task}"
    if isinstance(event, Fired):
        return f"fire/{event.task}"
    if isinstance(event, Halted):
        return f"halt/{event.task}"
    if isinstance(event, Quarantined):
        return f"unreadable/{event.seq}"
    return None if isinstance(event, Epoch | Outcome | Checkpoint) else "budget"


class Proposals:
    """The open proposals of one epoch, and the tokens and places that they reserve."""

    def __init__(self) -> None:
        self.reserved = Reserved()
        self.under_way: Tally[Queue] = Tally()
        self.boxes: Tally[HostKey] = Tally()
        self._open: dict[str, tuple[Need, Queue, str | None] | None] = {}
        self.keys: KeysView[str] = self._open.keys()
        """What is being decided on; it follows."""

    def __contains__(self, key: object) -> bool:
        return key in self._open

    def open(self, key: str) -> None:
        """A proposal that reserves nothing."""
        self._open[key] = None

    def open_dispatch(self, key: str, need: Need, queue: Queue, host: str | None) -> None:
        """A dispatch: it reserves its tokens and units, and a place in its queue."""
        self._open[key] = (need, queue, host)
        self.reserved.open(need)
        self.under_way[queue] += 1
        if host is not None:
            self.boxes[(queue[0], host)] += 1

    def resolve(self, event: Event) -> None:
        """The event was read back, whether it counted or not."""
        key = event.task if type(event) is Dispatch else key_of(event)  # the frequent one first
        reserved = self._open.pop(key, None) if key is not None else None
        if reserved is not None:
            need, queue, host = reserved
            self.reserved.close(need)
            self.under_way[queue] -= 1
            if host is not None:
                self.boxes[(queue[0], host)] -= 1

    def clear(self) -> list[str]:
        """A new epoch: nothing of the old one can be stored any more. Returns what they decided on:
        tasks, workflows, commands and schedules by id, unreadable messages by `!sequence`."""
        names = [_subject_of(key) for key in self._open]
        self._open.clear()
        self.reserved.clear()
        self.under_way.clear()
        self.boxes.clear()
        return names


def _subject_of(key: str) -> str:
    what, slash, name = key.partition("/")
    if not slash:
        return what
    return f"!{name}" if what == "unreadable" else name.partition("/")[0]
