"""What of the board's hosts one API object holds: slots, cores and memory, never more than they
have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from callboard.parallel.records import AgentRequirement
from callboard_agents.allocations import AgentResourceAllocation
from callboard_broker.errors import BadInput, ResourcesExhausted
from callboard_router.candidates import HostView

__all__ = ["Holdings"]

_MOST_TOLD = 4


@dataclass(slots=True)
class _Held:
    """Of one machine."""

    cpu_cores: float = 0.0
    memory_mb: float = 0.0


class Holdings:
    """Free of I/O: the views of the hosts come with each question. Hosts of one machine share its
    cores and its memory."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._machines: dict[str, _Held] = {}
        self._given: dict[int, tuple[AgentResourceAllocation, AgentRequirement, str]] = {}

    def take(self, wanted: AgentRequirement, views: Sequence[HostView]) -> AgentResourceAllocation:
        """Hold it on the first host of `views` that has room. Raises `ResourcesExhausted`."""
        lacking: list[str] = []
        for view in views:
            short = self._short(wanted, view)
            if short is None:
                break
            lacking.append(f"{view.host}: {short}")
        else:
            why = "; ".join(lacking[:_MOST_TOLD]) or "no agent that fits is there"
            raise ResourcesExhausted(wanted.capability, why)
        machine = _machine(view)
        self._slots[view.host] = slots = self._slots.get(view.host, 0) + 1
        held = self._machines.setdefault(machine, _Held())
        held.cpu_cores += wanted.cpu_cores or 0.0
        held.memory_mb += wanted.memory_mb or 0.0
        found = AgentResourceAllocation(
            agent_id=view.host,
            cpu_cores=math.ceil(wanted.cpu_cores or 0),
            memory_mb=math.ceil(wanted.memory_mb or 0),
            timeout_seconds=wanted.timeout_seconds,
            priority=wanted.priority,
            specialization=list(view.specialization),
            current_workload=1.0 - max(0, view.free - slots) / max(1, view.slots),
        )
        self._given[id(found)] = (found, wanted, machine)
        return found

    def release(self, allocations: Sequence[AgentResourceAllocation]) -> None:
        """Hold them no longer. Raises `BadInput` for what is not held."""
        for allocation in allocations:
            known = self._given.pop(id(allocation), None)
            if known is None:
                raise BadInput("allocations", f"{allocation.agent_id}: is not held by this object")
            _, wanted, machine = known
            self._slots[allocation.agent_id] -= 1
            held = self._machines[machine]
            held.cpu_cores -= wanted.cpu_cores or 0.0
            held.memory_mb -= wanted.memory_mb or 0.0

    def _short(self, wanted: AgentRequirement, view: HostView) -> str | None:
        """What the host lacks; None if it has room."""
        slots = self._slots.get(view.host, 0)
        held = self._machines.get(_machine(view), _Held())
        if view.free <= slots:
            return f"{slots} of {view.free} free slots are held"
        cores = view.cpus - max(view.cpu_promised, view.cpu_used) - held.cpu_cores
        if wanted.cpu_cores is not None and cores < wanted.cpu_cores:
            return f"{max(0.0, cores):.3g} cores are free, {wanted.cpu_cores:g} are wanted"
        memory = view.memory_free_mb - held.memory_mb
        if wanted.memory_mb is not None and memory < wanted.memory_mb:
            return f"{max(0.0, memory):.0f} MiB are free, {wanted.memory_mb:g} are wanted"
        return None


def _machine(view: HostView) -> str:
    return view.node or view.host
