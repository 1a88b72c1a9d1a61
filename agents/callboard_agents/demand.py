"""What a supervisor sees: the queues of its agents, as the router counts them, and its machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import msgspec
import psutil

from callboard_agents.cpu_load import CpuLoad
from callboard_agents.memory import free_memory_mb
from callboard_agents.scaling import Observation, QueueSeen
from callboard_broker.connection import Connection
from callboard_broker.subjects import ALL_TENANTS, Subjects
from callboard_config.cpus import usable_cpus

__all__ = ["Backlog", "Demand", "QueueBacklog"]

_ASK_SECONDS = 1.0
_MIB = 1024 * 1024
_LOG = logging.getLogger("callboard.pool")


class QueueBacklog(msgspec.Struct, frozen=True):
    """What the router says of one queue."""

    pool: str
    capability: str
    waiting: int = 0
    oldest_ms: int = 0
    running: int = 0
    slots: int = 0
    hosts: int = 0


class Backlog(msgspec.Struct, frozen=True):
    """The router's answer."""

    queues: list[QueueBacklog] = []

    def of(self, pool: str, capabilities: Sequence[str]) -> tuple[QueueSeen, ...]:
        """Return what is seen of these agents' queues. What only waits for a capability below one
        of theirs, they serve as well."""
        seen: dict[str, QueueSeen] = {}
        for queue in self.queues:
            name = _nearest(queue.capability, capabilities) if queue.pool == pool else None
            if name is None:
                continue
            before = seen.get(name, QueueSeen())
            seen[name] = QueueSeen(
                waiting=before.waiting + queue.waiting,
                oldest_ms=max(before.oldest_ms, queue.oldest_ms),
                running=before.running + queue.running,
                slots=before.slots + queue.slots,
                hosts=max(before.hosts, queue.hosts),
            )
        return tuple(seen.values())


class Demand:
    """Looks each second. agents: the capabilities that the processes offer; may be replaced."""

    def __init__(self, connection: Connection, prefix: str, pool: str) -> None:
        self.agents: Sequence[str] = ()
        self._connection = connection
        self._question = Subjects(prefix).ask(ALL_TENANTS, "backlog")
        self._pool = pool
        self._load = CpuLoad()
        self._processes: dict[int, psutil.Process] = {}

    async def look(self, pids: Iterable[int], *, starting: int) -> Observation | None:
        """Return what is seen now; None if the router does not answer."""
        load = self._load.look(time.monotonic())
        cores, host_mb = self._measure(list(pids))
        try:
            reply = await self._connection.request(self._question, b"{}", timeout=_ASK_SECONDS)
            backlog = msgspec.json.decode(reply.data, type=Backlog)
        except (OSError, LookupError, msgspec.MsgspecError) as error:
            _LOG.debug("the router does not say what waits: %s", error)
            return None
        return Observation(
            queues=backlog.of(self._pool, self.agents),
            starting=starting,
            cpus=usable_cpus(),
            load=load,
            free_mb=free_memory_mb(),
            cores=cores,
            host_mb=host_mb,
        )

    def _measure(self, pids: list[int]) -> tuple[float, float]:
        """Return the mean cores and memory of these processes."""
        before, self._processes = self._processes, {}
        cores, host_mb, counted = 0.0, 0.0, 0
        for pid in pids:
            try:
                process = self._processes[pid] = before.get(pid) or psutil.Process(pid)
                with process.oneshot():
                    cores += process.cpu_percent() / 100
                    host_mb += process.memory_info().rss / _MIB
                    counted += 1
            except psutil.Error as error:
                _LOG.debug("a process has just ended: %s", error)
        return cores / max(counted, 1), host_mb / max(counted, 1)


def _nearest(capability: str, offered: Sequence[str]) -> str | None:
    while capability:
        if capability in offered:
            return capability
        capability = capability.rpartition(".")[0]
    return None
