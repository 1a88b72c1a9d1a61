"""How many local processes there should be: grown by what waits, shrunk when it is quiet.

More are started where tasks have waited for a while and more processes would help: a queue's slots
are all taken, the processes are at the end of one core each, or none of them is heard; never beyond
the memory and CPU that the machine has left. What only a budget holds up makes nothing grow. Growth
is quick (at most twofold a step, and only once those started before work), shrinking slow. Without
an answer from the router it stays as it is. Free of I/O: observations and the time come in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from callboard_broker.errors import BadInput

__all__ = ["Observation", "QueueSeen", "Scaler", "ScalingPolicy"]

_FULL = 0.9  # of a queue's slots, by a count that is a beat old
_AT_ITS_END = 0.8  # of a core: so busy a process computes, and holds one interpreter lock
_ROOMY = 0.7  # of what remains after one process less
_STEP_SECONDS = 5.0  # from one process less to the next
_UNHEARD_SECONDS = 3.0  # a router that has just begun hears each host within a beat


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """The bounds and the pace. Raises `BadInput` that names the field."""

    least: int = 1
    """Processes that there always are; 0: none while nobody wants anything."""
    most: int = 1
    """Processes at most."""
    wait_seconds: float = 1.0
    """So long a task waits before another process is started; from none at all: not at all."""
    quiet_seconds: float = 30.0
    """So long one process less must have sufficed before there is one less."""
    idle_seconds: float = 60.0
    """So long nothing must have run or waited before the last process ends."""
    look_seconds: float = 1.0
    """From one look at the router's backlog to the next."""
    busy: float = 0.9
    """The part of the machine's CPUs in use, above which nothing is started."""
    reserve_mb: float = 256.0
    """Memory of the machine, in MiB, that is left free."""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise BadInput("least", "must be at least 0 and at most `most`")
        if self.most < 1:
            raise BadInput("most", "must be at least 1")
        for name in ("wait_seconds", "quiet_seconds", "idle_seconds"):
            if getattr(self, name) < 0:
                raise BadInput(name, "must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSeen:
    """One queue that the processes serve, on the whole board. slots: of `hosts` hosts together."""

    waiting: int = 0
    oldest_ms: int = 0
    running: int = 0
    slots: int = 0
    hosts: int = 0

    @property
    def missing(self) -> int:
        """Hosts more that would be needed to run all at once; 0 while there are slots free."""
        if not self.waiting or not self.slots or self.running < _FULL * self.slots:
            return 0
        each = self.slots / max(self.hosts, 1)
        return math.ceil((self.waiting + max(self.running - self.slots, 0)) / each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is seen at a moment. starting: processes that do not work yet. load: of the machine's
    CPUs, 0 to 1. cores, host_mb: what one process uses, on the average."""

    queues: tuple[QueueSeen, ...] = ()
    starting: int = 0
    cpus: float = 1.0
    load: float = 0.0
    free_mb: float = math.inf
    cores: float = 0.0
    host_mb: float = 0.0

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return sum(queue.waiting for queue in self.queues)

    @property
    def running(self) -> int:
        """Attempts that run."""
        return sum(queue.running for queue in self.queues)

    @property
    def unheard(self) -> bool:
        """Whether something waits that no host serves: those that there are have fallen silent."""
        return any(queue.waiting and not queue.hosts for queue in self.queues)


class Scaler:
    """Decides again and again; remembers since when it has been quiet, or nobody was heard."""

    def __init__(self, policy: ScalingPolicy) -> None:
        self.policy = policy
        self._quiet_since: float | None = None
        self._idle_since: float | None = None
        self._unheard_since: float | None = None
        self._shrunk = False

    def decide(self, seen: Observation | None, hosts: int, now: float) -> int:
        """Return how many processes there should be, of `hosts` now. now: monotonic seconds."""
        policy = self.policy
        if not policy.least <= hosts <= policy.most:
            return min(max(hosts, policy.least), policy.most)
        if seen is None or seen.starting:
            self._forget()
            return hosts
        if seen.waiting or seen.running:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        if not seen.unheard:
            self._unheard_since = None
        elif self._unheard_since is None:
            self._unheard_since = now
        more = self._more(seen, hosts, now)
        if more or not _suffice(seen, hosts - 1):
            self._quiet_since, self._shrunk = None, False
            return min(hosts + more, policy.most)
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        return self._fewer(hosts, now)

    def _more(self, seen: Observation, hosts: int, now: float) -> int:
        if hosts == 0:
            return int(seen.waiting > 0)
        late = 1000 * self.policy.wait_seconds
        queues = [queue for queue in seen.queues if queue.waiting and queue.oldest_ms >= late]
        missing = max((queue.missing for queue in queues), default=0)
        if queues and seen.cores >= _AT_ITS_END:
            missing = max(missing, 1)
        if self._unheard_since is not None and now - self._unheard_since >= _UNHEARD_SECONDS:
            missing = max(missing, 1)
        if not missing or seen.load >= self.policy.busy:
            return 0
        room = math.inf
        if seen.host_mb > 0:
            room = (seen.free_mb - self.policy.reserve_mb) / seen.host_mb
        if seen.cores > 0:
            room = min(room, max(1.0, (1 - seen.load) * seen.cpus / seen.cores))
        return math.floor(max(0.0, min(missing, hosts, room)))

    def _fewer(self, hosts: int, now: float) -> int:
        policy = self.policy
        if hosts <= policy.least or self._quiet_since is None:
            return hosts
        if hosts == 1:
            idle = self._idle_since is not None and now - self._idle_since >= policy.idle_seconds
            return hosts - idle
        pause = min(_STEP_SECONDS, policy.quiet_seconds) if self._shrunk else policy.quiet_seconds
        if now - self._quiet_since < pause:
            return hosts
        self._quiet_since, self._shrunk = now, True
        return hosts - 1

    def _forget(self) -> None:
        self._quiet_since = self._idle_since = self._unheard_since = None
        self._shrunk = False


def _suffice(seen: Observation, hosts: int) -> bool:
    """Whether so many processes, one less than there are, could do it with room to spare."""
    if hosts < 1:
        return not seen.waiting and not seen.running
    if seen.waiting or seen.cores * (hosts + 1) / hosts > _ROOMY:
        return False
    return all(
        queue.running <= _ROOMY * queue.slots * max(queue.hosts - 1, 1) / max(queue.hosts, 1)
        for queue in seen.queues
    )
