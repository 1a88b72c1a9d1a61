"""Whether measured memory and CPU let a host take more work, with hysteresis.

Memory closes for everybody when little of it is left; a busy CPU closes only for agents that
declare how much of it they need, because to the others a full CPU is no harm. Each opens again only
well clear of where it closed. Free of I/O: measurements come in.
"""

from __future__ import annotations

from dataclasses import dataclass

from callboard_agents.allocations import Need

__all__ = ["Admission", "Measured"]

_LITTLE_PART = 0.05
_LITTLE_MB = 256.0  # of a large machine's memory, 5 % would be a lot to leave unused
_CLEAR = 1.5
_BUSY = 0.95
_CALM = 0.85
_WEIGHT = 0.5  # of the newest look at the CPU: one busy second is no reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """free_mb, total_mb: memory of the machine or cgroup. load: of its CPUs, 0 to 1."""

    free_mb: float
    total_mb: float
    load: float


class Admission:
    """The gates of one host. Looked at once a beat, from the thread of the beats."""

    def __init__(self) -> None:
        self.memory_open = True
        self.cpu_open = True
        self._load: float | None = None
        self._spare_kb: int | None = None

    def look(self, measured: Measured) -> None:
        """Take a measurement into account."""
        little = min(_LITTLE_MB, _LITTLE_PART * measured.total_mb)
        self.memory_open = measured.free_mb > little * (1.0 if self.memory_open else _CLEAR)
        self._spare_kb = int(1024 * (measured.free_mb - little))
        before = measured.load if self._load is None else self._load
        self._load = load = _WEIGHT * measured.load + (1 - _WEIGHT) * before
        self.cpu_open = load < (_BUSY if self.cpu_open else _CALM)

    def room(self, need: Need, since: Need, *, idle: bool) -> int | None:
        """How many attempts more the measurements allow; None: they set no limit.

        since: promised since the last look, so not measured yet. idle: the host runs nothing; it
        may always have one attempt whose memory is there, or nothing would ever make room.
        """
        if not self.memory_open or (need.millicores and not self.cpu_open):
            return int(idle and self._spare(need, since) != 0)
        return self._spare(need, since)

    def _spare(self, need: Need, since: Need) -> int | None:
        if self._spare_kb is None or not need.memory_kb:
            return None
        return max(0, self._spare_kb - since.memory_kb) // need.memory_kb
