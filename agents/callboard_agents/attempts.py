"""Which dispatches a host may start, what it holds, and until when it may speak of them.

The rules of a host's lease (PROTOCOL.md, "Leases"), free of I/O and of clocks: time comes in as
an argument. Every attempt belongs to one *life* of the host. When the lease ends, the life is
replaced by a new one in a single assignment, and whatever belongs to the old one is void: it may
never report. That is why the thread of the beats may end a lease while the host's loop is busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from callboard_broker.wire import Dispatch

__all__ = ["Attempts", "Confirm", "Life", "Refuse", "Start"]

_GENERATION = 4096  # the seen attempts are forgotten in lots of at least this many
_UNKNOWN: Final = 1 << 63  # no sequence is known to have been stored after the connection


class Life:
    """One incarnation: its name, and the attempts it holds, in the order of their start."""

    __slots__ = ("confirm", "fresh_until", "held", "incarnation", "lease_end", "start")

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.held: dict[tuple[str, int], None] = {}
        self.lease_end = float("-inf")
        self.fresh_until = float("-inf")
        self.start = Start(self)
        self.confirm = Confirm(self)


@dataclass(frozen=True, slots=True)
class Start:
    """The attempt runs now; `life` holds it."""

    life: Life


@dataclass(frozen=True, slots=True)
class Confirm:
    """The dispatch may be an old one delivered again: the router's word is needed first."""

    life: Life


@dataclass(frozen=True, slots=True)
class Refuse:
    """The attempt must not run here; the router will find that nobody holds it."""

    reason: str


class Attempts:
    """The attempts of one host.

    incarnation: unlike any other that this host ever had; later lives append `.1`, `.2`, ...
    lease_seconds: from the sending of an acknowledged beat to the end of the lease.
    suspect_seconds: without an acknowledged beat for this long, the host wants no new work.
    """

    def __init__(
        self, incarnation: str, *, lease_seconds: float, suspect_seconds: float = 3.0
    ) -> None:
        self._first = incarnation
        self._lives = 0
        self._lease_seconds = lease_seconds
        self._suspect_seconds = suspect_seconds
        self._life = Life(incarnation)
        self._seen: set[tuple[str, int]] = set()
        self._seen_until = 0
        self._seen_before: set[tuple[str, int]] = set()
        self._seen_before_until = 0
        self._latest_ms = 0
        self._barrier = _UNKNOWN

    @property
    def life(self) -> Life:
        """The present incarnation. What was started under another one is void."""
        return self._life

    @property
    def remembered(self) -> int:
        """How many attempts are remembered as seen; bounded by what is offered in a start_by."""
        return len(self._seen) + len(self._seen_before)

    def connected(self) -> None:
        """A connection was made, or made again: until `stored_before`, everything may be old."""
        self._barrier = _UNKNOWN

    def stored_before(self, seq: int) -> None:
        """The journal's last sequence at the time of the connection: up to it, ask the router."""
        self._barrier = seq

    @property
    def fresh_from(self) -> int:
        """The journal's last sequence at the time of the connection; 0 while it is not known."""
        return 0 if self._barrier == _UNKNOWN else self._barrier

    def wants_work(self, now: float) -> bool:
        """Whether the host should ask for dispatches: its last acknowledged beat is recent."""
        return now < self._life.fresh_until

    def offered(
        self, dispatch: Dispatch, seq: int, *, now_ms: int, now: float
    ) -> Start | Confirm | Refuse:
        """Decide about a delivered dispatch, stored in the journal at `seq`.

        now_ms: the server's clock. now: the local clock of the lease, seconds.
        """
        # A clock that steps back must not make an attempt young again after it was forgotten.
        self._latest_ms = max(self._latest_ms, now_ms)
        if self._latest_ms > dispatch.start_by:
            return Refuse(f"delivered {self._latest_ms - dispatch.start_by} ms after its start_by")
        key = (dispatch.task, dispatch.attempt)
        if key in self._seen or key in self._seen_before:
            return Refuse("this host has seen it before")
        self._remember(key, dispatch.start_by)
        life = self._life
        if now >= life.lease_end:
            return Refuse("this host has no lease")
        if seq <= self._barrier:
            return life.confirm
        life.held[key] = None
        return life.start

    def needs_word(self, seq: int) -> bool:
        """Whether the dispatch at `seq` may be an old one; ask again once more is known."""
        return seq <= self._barrier

    def confirmed(
        self, life: Life, dispatch: Dispatch, *, now_ms: int, now: float
    ) -> Start | Refuse:
        """The router said go, or need not be asked: the last checks before the start.

        life: the one in which it was offered, and by whose name the router was asked.
        """
        self._latest_ms = max(self._latest_ms, now_ms)
        if self._latest_ms > dispatch.start_by:
            return Refuse(f"confirmed {self._latest_ms - dispatch.start_by} ms after its start_by")
        if not self.may_report(life, now):
            return Refuse("this host has lost its lease meanwhile")
        life.held[dispatch.task, dispatch.attempt] = None
        return life.start

    def may_report(self, life: Life, now: float) -> bool:
        """Whether an attempt that was started in `life` may still send anything."""
        return life is self._life and now < life.lease_end

    def release(self, life: Life, task: str, attempt: int) -> None:
        """The attempt's outcome is stored (or will never be sent): it is held no longer."""
        life.held.pop((task, attempt), None)

    def snapshot(self) -> tuple[Life, list[tuple[str, int]]]:
        """The present life and what it holds; safe from any thread (one C call copies)."""
        life = self._life
        return life, list(life.held)

    def beat_stored(self, life: Life, sent_at: float) -> None:
        """A beat of `life`, sent at `sent_at`, was acknowledged: its lease is longer now."""
        if life is self._life:
            life.lease_end = max(life.lease_end, sent_at + self._lease_seconds)
            life.fresh_until = max(life.fresh_until, sent_at + self._suspect_seconds)

    def end_lease(self, now: float) -> Life | None:
        """Begin a new life if the lease has ended; return the old one, void from here on.

        A life that never had a lease holds nothing and goes on waiting for its first beat.
        """
        old = self._life
        if old.lease_end == float("-inf") or now < old.lease_end:
            return None
        self._lives += 1
        self._life = Life(f"{self._first}.{self._lives}")
        return old

    def _remember(self, key: tuple[str, int], start_by: int) -> None:
        """Two generations: one is forgotten when every start_by in it has passed."""
        if len(self._seen) >= _GENERATION and self._seen_before_until < self._latest_ms:
            self._seen_before = self._seen
            self._seen_before_until = self._seen_until
            self._seen = set()
            self._seen_until = 0
        self._seen.add(key)
        self._seen_until = max(self._seen_until, start_by)
