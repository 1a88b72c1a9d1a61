"""What running attempts were promised of their host's CPU and memory: never more than its share.

Taken at an attempt's start and given back at its end, in whole thousandths of a core and whole KiB,
so that no rounding ever leaks a promise. Free of I/O and of clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["AgentResourceAllocation", "Allocations", "Need"]

_ANY = 1_000_000
"""Room for something that needs nothing; no lane has more slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResourceAllocation:
    """What one agent's running attempts hold at a moment, by the specification's names.

    cpu_cores: rounded up. current_workload: the part of its slots that is taken, 0 to 1.
    """

    agent_id: str
    cpu_cores: int
    memory_mb: int
    timeout_seconds: int
    priority: int
    specialization: list[str]
    current_workload: float


@dataclass(frozen=True, slots=True)
class Need:
    """An amount of both. millicores: thousandths of a core."""

    millicores: int = 0
    memory_kb: int = 0

    @classmethod
    def of(cls, cpu: float | None, memory_mb: float | None) -> Self:
        """Of an agent's declaration; what it leaves out, it does not need."""
        return cls(_whole((cpu or 0.0) * 1000), _whole((memory_mb or 0.0) * 1024))

    @property
    def cpu(self) -> float:
        """In cores."""
        return self.millicores / 1000

    @property
    def memory_mb(self) -> float:
        """In MiB."""
        return self.memory_kb / 1024

    def __bool__(self) -> bool:
        return self.millicores > 0 or self.memory_kb > 0

    def times(self, number: int) -> Need:
        """Of so many attempts."""
        return Need(self.millicores * number, self.memory_kb * number)

    def plus(self, other: Need) -> Need:
        """Both together."""
        return Need(self.millicores + other.millicores, self.memory_kb + other.memory_kb)

    def minus(self, other: Need) -> Need:
        """What is left of it."""
        return Need(self.millicores - other.millicores, self.memory_kb - other.memory_kb)

    def at_most(self, share: Need) -> Need:
        """As much of it as the share has."""
        return Need(min(self.millicores, share.millicores), min(self.memory_kb, share.memory_kb))

    def fits(self, free: Need) -> int:
        """How many of it fit into what is free."""
        most = _ANY
        if self.millicores > 0:
            most = min(most, free.millicores // self.millicores)
        if self.memory_kb > 0:
            most = min(most, free.memory_kb // self.memory_kb)
        return max(most, 0)


class Allocations:
    """The promises of one host. share: what all of its attempts together may be promised."""

    __slots__ = ("_taken", "share")

    def __init__(self, share: Need) -> None:
        self.share = share
        self._taken = Need()

    @property
    def taken(self) -> Need:
        """What is promised now."""
        return self._taken

    @property
    def free(self) -> Need:
        """What is not."""
        return self.share.minus(self._taken)

    def room(self, need: Need) -> int:
        """How many attempts more that need so much may start."""
        return need.fits(self.free)

    def reserve(self, need: Need) -> None:
        """Promise it to an attempt that starts. Raises `ValueError` where there is no room."""
        if need.fits(self.free) < 1:
            raise ValueError(f"{need} does not fit into the {self.free} that are free")
        self._taken = self._taken.plus(need)

    def release(self, need: Need) -> None:
        """The attempt has ended. Raises `ValueError` for what was never promised."""
        if need.fits(self._taken) < 1:
            raise ValueError(f"{need} was not promised; {self._taken} is")
        self._taken = self._taken.minus(need)


def _whole(amount: float) -> int:
    """Return a positive amount in whole units, at least one."""
    return 0 if amount <= 0 else max(1, round(min(amount, 1e15)))
