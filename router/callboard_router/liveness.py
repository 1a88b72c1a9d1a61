"""Who is alive, and which attempts somebody holds: observations, never part of the fold's hash.

An attempt's lease is the beats that list it. It is lost at once when its host is proved dead, and
otherwise when no beat has listed it for a lease; an attempt that no host took in time is lost too.
Lease time stands still while the router itself is cut off: after that, as after the start of a
router, everything is granted one full lease. But what no host holds after an outage is lost as soon
as all that were known before it have been heard again: a restarted server may hand it over twice,
so nobody may start it any more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from callboard_broker.wire import Beat

__all__ = ["Answer", "Claim", "Hold", "Host", "Liveness", "Loss", "Queue", "Timing"]

Queue = tuple[str, str]
"""(pool, capability): one durable of the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. start: a dispatch must be started within it. suspect: a silent host gets no work."""

    beat: float = 1.0
    suspect: float = 3.0
    lease: float = 20.0
    start: float = 5.0


@dataclass(slots=True, kw_only=True)
class Host:
    """A host as its last beat showed it; `seen` on the router's monotonic clock."""

    beat: Beat
    seen: float


@dataclass(slots=True, kw_only=True)
class Hold:
    """A running attempt. owner: (host, incarnation) once a beat has listed it.

    seq: of its dispatch. unclaimed_until: when it is lost if still nobody lists it.
    clouded: dispatched before the last time that the router was cut off.
    """

    attempt: int
    seq: int
    queue: Queue
    renewed: float
    unclaimed_until: float
    owner: tuple[str, str] | None = None
    clouded: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that nobody will finish, and why."""

    task: str
    attempt: int
    reason: str
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A host asks whether it may start a dispatch that is older than its connection."""

    task: str
    attempt: int
    host: str
    incarnation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """go: start it. wait: ask again. Neither: drop it."""

    go: bool
    wait: bool
    why: str


@dataclass(slots=True)
class Liveness:
    """The observations of one router. Every `now` is its monotonic clock, in seconds."""

    timing: Timing
    hosts: dict[str, Host] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    _gone: list[Loss] = field(default_factory=list)
    _cut_at: float = 0.0
    _witnesses: set[str] | None = None

    def dispatched(self, task: str, attempt: int, seq: int, queue: Queue, *, now: float) -> None:
        """The fold has accepted a dispatch."""
        self.holds[task] = Hold(
            attempt=attempt,
            seq=seq,
            queue=queue,
            renewed=now,
            unclaimed_until=now + self.timing.start + 2 * self.timing.beat,
        )

    def ended(self, task: str) -> Queue:
        """The fold has accepted an outcome or a loss. Returns the queue that has room again."""
        return self.holds.pop(task).queue

    def grant(self, now: float, *, hosts_are_known: bool) -> None:
        """The router was cut off, or is new: one full lease for every attempt.

        hosts_are_known: this router saw every host before; then their beats since are as good.
        """
        self._cut_at = now
        self._witnesses = set(self.hosts) if hosts_are_known else None
        for hold in self.holds.values():
            hold.clouded = True
            hold.renewed = now
            hold.unclaimed_until = max(hold.unclaimed_until, now + self.timing.start)

    def heard(self, beat: Beat, now: float) -> None:
        """A beat has come; losses that it proves are kept for `losses`."""
        known = self.hosts.get(beat.host)
        if known is not None and known.beat.incarnation != beat.incarnation and not beat.gone:
            self._owner_is_gone((beat.host, known.beat.incarnation), "its host began anew")
        if beat.gone:
            if known is not None and beat.ends(known.beat.incarnation):
                self._owner_is_gone((beat.host, known.beat.incarnation), "its host's process ended")
                del self.hosts[beat.host]
            return
        self.hosts[beat.host] = Host(beat=beat, seen=now)
        owner = (beat.host, beat.incarnation)
        for task, attempt in beat.holds:
            hold = self.holds.get(task)
            if hold is not None and hold.attempt == attempt and hold.owner in (None, owner):
                hold.owner = owner
                hold.renewed = now

    def losses(self, now: float) -> Iterator[Loss]:
        """What is lost by now. Yields an attempt again until the fold has accepted its loss."""
        keep = []
        for loss in self._gone:
            hold = self.holds.get(loss.task)
            if hold is not None and hold.attempt == loss.attempt:
                keep.append(loss)
                yield loss
        self._gone = keep
        vouched = self._vouched()
        clear = self._cut_at + self.timing.lease
        for task, hold in self.holds.items():
            if hold.owner is not None:
                if now - hold.renewed > self.timing.lease:
                    yield Loss(task, hold.attempt, "its host's lease ended", hold.owner[0])
            elif hold.clouded and hold.seq <= vouched:
                yield Loss(task, hold.attempt, "no host holds it after an outage")
            elif now > max(hold.unclaimed_until, clear if hold.clouded else 0.0):
                yield Loss(task, hold.attempt, "no host started it in time")

    def capacity(self, now: float) -> dict[Queue, tuple[int, int]]:
        """For each queue that a live host serves: (slots, hosts)."""
        found: dict[Queue, tuple[int, int]] = {}
        for host in self.hosts.values():
            if now - host.seen <= self.timing.suspect:
                for offer in host.beat.offers:
                    queue = (host.beat.pool, offer.capability)
                    slots, hosts = found.get(queue, (0, 0))
                    found[queue] = (slots + offer.slots, hosts + 1)
        return found

    def forget_silent(self, now: float) -> None:
        """Drop hosts that have been silent for three leases: nothing of theirs is held any more."""
        for name in [
            name for name, host in self.hosts.items() if now - host.seen > 3 * self.timing.lease
        ]:
            del self.hosts[name]

    def confirm(self, claim: Claim, connected_seq: int, now: float) -> Answer:
        """May this host start the attempt? The caller has folded the journal up to its end.

        connected_seq: the journal's end when the router's connection was made. A dispatch stored
        since then was delivered once: no restarted server can have handed it over twice.
        """
        hold = self.holds.get(claim.task)
        if hold is None or hold.attempt != claim.attempt:
            return Answer(go=False, wait=False, why="the attempt is not current")
        owner = (claim.host, claim.incarnation)
        if hold.owner not in (None, owner):
            return Answer(go=False, wait=False, why="another host holds it")
        if hold.owner == owner or hold.seq > connected_seq:
            hold.owner = owner
            hold.renewed = now
            return Answer(go=True, wait=False, why="current and unheld")
        # Not even when every living host denies it: one that has died may have started it.
        return Answer(go=False, wait=True, why="it may have been handed over before the outage")

    def _vouched(self) -> int:
        """Up to here, whatever has no owner is held by no host, and would not be started unasked.

        So it is when all hosts known before the cut were heard since, or are gone; else 0.
        """
        if self._witnesses is None:
            return 0
        found = [host for name in self._witnesses if (host := self.hosts.get(name)) is not None]
        if any(host.seen <= self._cut_at for host in found):
            return 0
        return min((host.beat.fresh_from for host in found), default=sys.maxsize)

    def _owner_is_gone(self, owner: tuple[str, str], reason: str) -> None:
        self._gone.extend(
            Loss(task, hold.attempt, reason, owner[0])
            for task, hold in self.holds.items()
            if hold.owner == owner
        )
