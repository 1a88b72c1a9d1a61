"""`ResourceManagementSystem`: cores and memory of this machine, given to whoever asks first.

All objects of one process share one account, made of what the process may use (affinity mask,
cgroup quotas) and of the memory that is measured to be free, so that what is allocated never adds
up to more. It counts and does not enforce; agents in child processes are limited by their hosts.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Self

from callboard.parallel.records import ResourceRequirements
from callboard_agents.allocations import Allocations, Need
from callboard_agents.memory import free_memory_mb, total_memory_mb
from callboard_broker.errors import BadInput, ResourcesExhausted
from callboard_config.cpus import usable_cpus

__all__ = ["ResourceAllocation", "ResourceManagementSystem"]

_LOOK_SECONDS = 0.2  # how often measured memory is looked at while somebody waits


class _Machine:
    """The account of this process. Whoever waits is served in the order of asking."""

    def __init__(self) -> None:
        self.allocations = Allocations(Need.of(usable_cpus(), total_memory_mb()))
        self.line: deque[asyncio.Event] = deque()

    def take(self, need: Need) -> bool:
        """Take it if it is there, by the account and by what is measured."""
        measured = free_memory_mb() >= need.memory_mb
        if not measured or self.allocations.room(need) < 1:
            return False
        self.allocations.reserve(need)
        return True

    def give_back(self, need: Need) -> None:
        self.allocations.release(need)
        if self.line:
            self.line[0].set()


_machine: list[_Machine] = []


def _account() -> _Machine:
    if not _machine:
        _machine.append(_Machine())
    return _machine[0]


class ResourceAllocation:
    """Cores and MiB that are held, until `release` or the end of an `async with`."""

    def __init__(self, cpu_cores: float, memory_mb: float) -> None:
        self.cpu_cores = cpu_cores
        self.memory_mb = memory_mb
        self._held = True

    def __repr__(self) -> str:
        return f"<ResourceAllocation {self.cpu_cores:g} cores, {self.memory_mb:g} MiB>"

    @property
    def held(self) -> bool:
        """Whether it was not given back yet."""
        return self._held

    def release(self) -> None:
        """Give it back; once is enough."""
        if self._held:
            self._held = False
            _account().give_back(Need.of(self.cpu_cores, self.memory_mb))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class ResourceManagementSystem:
    """Of this process's machine, or of the part of it that a cgroup grants."""

    @property
    def cpu_cores_free(self) -> float:
        """Cores that are not allocated."""
        return _account().allocations.free.cpu

    @property
    def memory_mb_free(self) -> float:
        """MiB that are neither allocated nor, by measurement, in use."""
        return min(_account().allocations.free.memory_mb, free_memory_mb())

    async def allocate_resources(self, requirements: ResourceRequirements) -> ResourceAllocation:
        """Hold what is required, waiting for it `wait_seconds` at most.

        Raises `BadInput` for more than there is at all, `ResourcesExhausted` if it is not free.
        """
        machine = _account()
        need = Need.of(requirements.cpu_cores, requirements.memory_mb)
        share = machine.allocations.share
        if need.fits(share) < 1:
            raise BadInput(
                "requirements",
                f"{need.cpu:g} cores and {need.memory_mb:g} MiB are more than all that this "
                f"process may use ({share.cpu:g} cores, {share.memory_mb:.0f} MiB)",
            )
        if machine.line or not machine.take(need):
            await self._wait(machine, need, requirements.wait_seconds)
        return ResourceAllocation(requirements.cpu_cores, requirements.memory_mb)

    async def _wait(self, machine: _Machine, need: Need, seconds: float) -> None:
        turn = asyncio.Event()
        machine.line.append(turn)
        until = time.monotonic() + seconds
        try:
            while machine.line[0] is not turn or not machine.take(need):
                left = until - time.monotonic()
                if left <= 0:
                    raise ResourcesExhausted(
                        "this machine",
                        f"{self.cpu_cores_free:.3g} cores and {self.memory_mb_free:.0f} MiB are "
                        f"free, {need.cpu:g} and {need.memory_mb:g} are wanted",
                    )
                turn.clear()
                try:
                    async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                        await turn.wait()
                except TimeoutError:
                    continue  # memory may have become free without anybody's word
        finally:
            machine.line.remove(turn)
            if machine.line:
                machine.line[0].set()
