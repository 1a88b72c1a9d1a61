"""Who is alive, and which attempts somebody holds: observations, never part of the fold's hash.

An attempt's lease is the beats that list it. It is lost at once when its host is proved dead, and
otherwise when no beat has listed it for a lease; an attempt that no host took in time is lost too.
Lease time stands still while the router itself is cut off: after that, as after the start of a
router, everything is granted one full lease. But what no host holds after an outage is lost as soon
as all that were known before it have been heard again: a restarted server may hand it over twice,
so nobody may start it any more.

A host is known by pool and name, and holds only attempts of its own pool; what went to a mailbox,
only the host of that name. Deadlines stand in buckets of time (`Alarms`), so that a tick costs what
may be due and not what runs.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from callboard_broker.wire import Beat
from callboard_router.alarms import Alarms
from callboard_router.holds import Answer, Claim, Hold, Loss, Owner, Timing, may_have
from callboard_router.hosts import (
    MOST_HOSTS,
    MOST_QUEUES,
    MOST_QUEUES_OF_A_POOL,
    Boxes,
    Host,
    HostKey,
    Queue,
    offers_of,
)
from callboard_router.routing import Blocked, Placement

__all__ = ["Answer", "Claim", "Hold", "Host", "Liveness", "Loss", "Owner", "Queue", "Timing"]


@dataclass(slots=True)
class Liveness:
    """The observations of one router. Every `now` is its monotonic clock, in seconds.

    serving: live hosts by the queues that they serve, as of the last `capacity`; ways: where tasks
    without requirements go, as `placement` worked it out from these.
    """

    timing: Timing
    hosts: dict[HostKey, Host] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    serving: dict[Queue, list[Host]] = field(default_factory=dict)
    ways: dict[tuple[str, str], Placement | Blocked] = field(default_factory=dict)
    ways_from: dict[Queue, tuple[int, int]] | None = None
    _of_pool: Counter[str] = field(default_factory=Counter)
    _owned: dict[Owner, set[str]] = field(default_factory=dict)
    _boxes: Boxes = field(default_factory=Boxes)
    _alarms: Alarms = field(default_factory=Alarms)
    _due: dict[str, int] = field(default_factory=dict)
    _gone: list[Loss] = field(default_factory=list)
    _clouded: dict[str, None] = field(default_factory=dict)
    _cut_at: float = 0.0
    _vouched_to: int = 0
    _witnesses: set[HostKey] | None = None
    _in_doubt: bool = False
    _counted_at: float = 0.0

    # -- attempts

    def dispatched(  # noqa: PLR0913  facts of one event; a record would be made for each attempt
        self,
        task: str,
        attempt: int,
        seq: int,
        queue: Queue,
        *,
        now: float,
        start_s: float | None = None,
        host: str | None = None,
        why: dict[str, Any] | None = None,
    ) -> None:
        """The fold has accepted a dispatch.

        start_s: seconds within which it must be begun, if not `Timing.start`. host: whose mailbox
        it went to. why: of the decision.
        """
        if start_s is None:
            start_s = self.timing.start
        until = now + start_s + 2 * self.timing.beat
        self.holds[task] = Hold(
            attempt=attempt,
            seq=seq,
            queue=queue,
            renewed=now,
            start_s=start_s,
            unclaimed_until=until,
            box=host,
            alarm=self._alarms.put(task, until),
            why=why,
        )
        if host is not None:
            self._boxes.of((queue[0], host))[queue[1]] += 1

    def ended(self, task: str) -> Queue:
        """The fold has accepted an outcome or a loss. Returns the queue that has room again."""
        hold = self.holds.pop(task)
        if hold.box is not None:
            self._box_ended(hold)
        if hold.owner is not None:
            owned = self._owned[hold.owner]
            owned.discard(task)
            if not owned:
                del self._owned[hold.owner]
        if self._clouded:
            self._clouded.pop(task, None)
        if self._due:
            self._due.pop(task, None)
        return hold.queue

    def grant(self, now: float, *, hosts_are_known: bool) -> None:
        """The router was cut off, or is new: one full lease for every attempt.

        hosts_are_known: this router saw every host before; then their beats since are as good.
        """
        self._cut_at = now
        self._witnesses = set(self.hosts) if hosts_are_known else None
        self._vouched_to = 0
        self._in_doubt = True
        self._clouded.clear()
        for task, hold in self.holds.items():
            hold.clouded = True
            hold.renewed = now
            hold.unclaimed_until = max(hold.unclaimed_until, now + hold.start_s)
            if hold.owner is None:
                self._clouded[task] = None

    def heard(self, beat: Beat, now: float) -> None:
        """A beat has come; losses that it proves are kept for `losses`."""
        key = (beat.pool, beat.host)
        known = self.hosts.get(key)
        self._in_doubt = True
        if beat.gone:
            if known is not None and beat.ends(known.beat.incarnation):
                self._is_gone((*key, known.beat.incarnation), "its host's process ended")
                self._forget(key)
            return
        if known is not None:
            if known.beat.incarnation != beat.incarnation:
                self._is_gone((*key, known.beat.incarnation), "its host began anew")
            if known.beat.offers != beat.offers:
                known.offers = offers_of(beat)
            known.beat, known.seen = beat, now
            known.freed.clear()
        elif self._of_pool[beat.pool] < MOST_HOSTS:
            self._of_pool[beat.pool] += 1
            known = self.hosts[key] = Host(beat=beat, seen=now, offers=offers_of(beat))
            known.on_the_way = self._boxes.of(key)
        owner = (*key, beat.incarnation)
        for task, attempt in beat.holds:
            hold = self.holds.get(task)
            if hold is not None and hold.attempt == attempt and may_have(hold, owner):
                self._renew(task, hold, owner, now)

    def losses(self, now: float) -> Iterator[Loss]:
        """What is lost by now. Yields an attempt again until the fold has accepted its loss."""
        keep = []
        for loss in self._gone:
            hold = self.holds.get(loss.task)
            if hold is not None and hold.attempt == loss.attempt:
                keep.append(loss)
                yield loss
        self._gone = keep
        self._take_alarms(now)
        for task, attempt in list(self._due.items()):
            hold = self.holds.get(task)
            if hold is None or hold.attempt != attempt:
                self._due.pop(task, None)
                continue
            reason = self._why_lost(hold, now)
            if reason is None:  # a beat has listed it after all
                del self._due[task]
                hold.alarm = self._alarms.put(task, self._deadline(hold))
            elif hold.owner is not None:
                yield Loss(task, attempt, reason, hold.owner[1], started=True)
            else:
                yield Loss(task, attempt, reason, hold.box)

    # -- hosts

    def capacity(self, now: float) -> dict[Queue, tuple[int, int]]:
        """For each queue that a live host serves: (slots, hosts). Renews `serving`."""
        found: dict[Queue, tuple[int, int]] = {}
        serving: dict[Queue, list[Host]] = {}
        queues: Counter[str] = Counter()
        for (pool, _name), host in self.hosts.items():
            if now - host.seen > self.timing.suspect:
                continue
            for capability, offer in host.offers.items():
                queue = (pool, capability)
                before = found.get(queue)
                if before is not None:
                    found[queue] = (before[0] + offer.slots, before[1] + 1)
                    serving[queue].append(host)
                elif len(found) < MOST_QUEUES and queues[pool] < MOST_QUEUES_OF_A_POOL:
                    queues[pool] += 1
                    found[queue] = (offer.slots, 1)
                    serving[queue] = [host]
        self.serving = serving
        self._counted_at = now
        return found

    def still_serves(self, queue: Queue, name: str) -> bool:
        """Whether work of this queue may wait for this host: it was heard within a lease."""
        host = self.hosts.get((queue[0], name))
        if host is None or queue[1] not in host.offers:
            return False
        return self._counted_at - host.seen <= self.timing.lease

    def forget_silent(self, now: float) -> None:
        """Drop hosts that have been silent for three leases: nothing of theirs is held any more."""
        silent = 3 * self.timing.lease
        for key in [key for key, host in self.hosts.items() if now - host.seen > silent]:
            self._forget(key)

    def confirm(self, claim: Claim, connected_seq: int, now: float) -> Answer:
        """May this host start the attempt? The caller has folded the journal up to its end.

        connected_seq: the journal's end when the router's connection was made. A dispatch stored
        since then was delivered once: no restarted server can have handed it over twice.
        """
        hold = self.holds.get(claim.task)
        if hold is None or hold.attempt != claim.attempt:
            return Answer(go=False, wait=False, why="the attempt is not current")
        pool = hold.queue[0] if claim.pool is None else claim.pool
        owner = (pool, claim.host, claim.incarnation)
        if not may_have(hold, owner):
            return Answer(go=False, wait=False, why="another host holds it")
        if hold.owner == owner or hold.seq > connected_seq:
            self._renew(claim.task, hold, owner, now)
            return Answer(go=True, wait=False, why="current and unheld")
        # Not even when every living host denies it: one that has died may have started it.
        return Answer(go=False, wait=True, why="it may have been handed over before the outage")

    # -- inside

    def _renew(self, task: str, hold: Hold, owner: Owner, now: float) -> None:
        hold.renewed = now
        if hold.owner is not None:
            return
        hold.owner = owner
        self._owned.setdefault(owner, set()).add(task)
        self._clouded.pop(task, None)
        self._left_the_box(hold)
        # With a long start timeout, the lease may end before the alarm that is set.
        hold.alarm = self._alarms.put(task, self._deadline(hold), unless=hold.alarm)

    def _deadline(self, hold: Hold) -> float:
        if hold.owner is not None:
            return hold.renewed + self.timing.lease
        clear = self._cut_at + self.timing.lease if hold.clouded else 0.0
        return max(hold.unclaimed_until, clear)

    def _why_lost(self, hold: Hold, now: float) -> str | None:
        if hold.owner is not None:
            if now - hold.renewed > self.timing.lease:
                return "its host's lease ended"
        elif hold.clouded and hold.seq <= self._vouched_to:
            return "no host holds it after an outage"
        elif now > self._deadline(hold):
            return "no host started it in time"
        return None

    def _take_alarms(self, now: float) -> None:
        """Move what may be lost by now to `_due`, where `losses` looks closely."""
        if self._in_doubt:
            self._in_doubt = False
            before, self._vouched_to = self._vouched_to, self._vouched() if self._clouded else 0
            if self._vouched_to > before:
                for task in self._clouded:
                    hold = self.holds[task]
                    if hold.seq <= self._vouched_to:
                        self._due[task] = hold.attempt
        for bucket, task in self._alarms.until(now):
            found = self.holds.get(task)
            if found is None or found.alarm != bucket:
                continue
            if self._why_lost(found, now) is None:
                found.alarm = self._alarms.put(task, self._deadline(found))
            else:
                self._due[task] = found.attempt

    def _vouched(self) -> int:
        """Up to here, whatever has no owner is held by no host, and would not be started unasked.

        So it is when all hosts known before the cut were heard since, or are gone; else 0.
        """
        if self._witnesses is None:
            return 0
        found = [host for key in self._witnesses if (host := self.hosts.get(key)) is not None]
        if any(host.seen <= self._cut_at for host in found):
            return 0
        return min((host.beat.fresh_from for host in found), default=sys.maxsize)

    def _is_gone(self, owner: Owner, reason: str) -> None:
        for task in sorted(self._owned.get(owner, ())):
            hold = self.holds[task]
            self._gone.append(Loss(task, hold.attempt, reason, owner[1], started=True))

    def _forget(self, key: HostKey) -> None:
        del self.hosts[key]
        self._boxes.forget(key)
        self._in_doubt = True
        self._of_pool[key[0]] -= 1

    def _left_the_box(self, hold: Hold) -> None:
        if hold.box is not None:
            pool, capability = hold.queue
            key = (pool, hold.box)
            self._boxes.arrived(key, capability, is_known=key in self.hosts)

    def _box_ended(self, hold: Hold) -> None:
        pool, capability = hold.queue
        if hold.owner is None:
            self._left_the_box(hold)
            return
        host = self.hosts.get((pool, hold.owner[1]))
        if host is not None and host.seen == hold.renewed:  # its last beat counts the slot as used
            host.freed[capability] += 1
