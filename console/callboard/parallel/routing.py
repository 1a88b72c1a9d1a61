"""`AgentRoutingAPI`: which agents fit a task, and which of several agents gets which task.

The router itself compares the hosts, as it does when it dispatches: by fit, specialization, load,
latency and success. What is assigned here is a proposal; give it to a task as `stay_with`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from callboard.parallel.records import (
    AgentSelection,
    ParallelTask,
    TaskAssignment,
    TaskRequirements,
)
from callboard_broker.client import Board
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput, CallboardError
from callboard_broker.wire import Needs
from callboard_router.candidates import HostView

__all__ = ["AgentRoutingAPI", "find_candidates", "selection_of"]

_SECONDS = 5.0


class _Complaint(msgspec.Struct):
    type: str
    message: str
    field: str | None = None


class _Found(msgspec.Struct):
    """What the router answers."""

    fitting: list[HostView] = []
    misfits: list[HostView] = []
    error: _Complaint | None = None


async def find_candidates(
    board: Board, capability: str, needs: Needs | None
) -> tuple[list[HostView], list[HostView]]:
    """Return the hosts that could run such a task, the best first, and those that never can.

    Raises `BadInput`, `NoResponder` if no router is active, `TimeoutError`.
    """
    question = {"capability": capability, "needs": needs}
    data = await board.ask("candidates", question, timeout=_SECONDS)
    found = msgspec.json.decode(data, type=_Found)
    if found.error is not None:
        if found.error.field is not None:
            raise BadInput(found.error.field, found.error.message)
        raise CallboardError(f"the router: {found.error.message}")
    return found.fitting, found.misfits


def selection_of(view: HostView) -> AgentSelection:
    """As the specification's interface names it."""
    return AgentSelection(
        agent_id=view.host,
        agent=view.agent,
        version=view.version,
        capability=view.capability,
        specialization=list(view.specialization),
        labels=dict(view.labels),
        score=view.score,
        parts=dict(view.parts),
        slots=view.slots,
        free_slots=view.free,
        cpu_cores_free=max(0.0, view.cpus - max(view.cpu_used, view.cpu_promised)),
        memory_mb_free=view.memory_free_mb,
        short=view.short,
    )


class AgentRoutingAPI:
    """Of one board: `AgentRoutingAPI(board)`, with the tenant that `board` posts for."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def select_optimal_agents(
        self, task_requirements: TaskRequirements
    ) -> list[AgentSelection]:
        """Return the agents that fit, the best first; those that are full come last.

        Raises `BadInput` that names what is wrong, `NoResponder` if no router is active.
        """
        wanted = task_requirements
        fitting, _ = await find_candidates(self._board, wanted.capability, wanted.needs())
        return [selection_of(view) for view in fitting]

    async def route_parallel_tasks(
        self, tasks: Sequence[ParallelTask], available_agents: Sequence[AgentSelection]
    ) -> list[TaskAssignment]:
        """Assign each task, in the order of their priorities, to the best of `available_agents`
        that fits and has a slot left; the answer is in the order of `tasks`.

        Raises as `select_optimal_agents` does.
        """
        left = {agent.agent_id: agent.free_slots for agent in available_agents}
        given = dict.fromkeys(left, 0)
        known: dict[bytes, tuple[list[HostView], list[HostView]]] = {}
        assigned: dict[int, TaskAssignment] = {}
        order = sorted(range(len(tasks)), key=lambda place: (-tasks[place].priority, place))
        for place in order:
            task = tasks[place]
            needs = None if task.requirements is None else task.requirements.needs()
            key = encode_payload([task.capability, needs])
            if key not in known:
                known[key] = await find_candidates(self._board, task.capability, needs)
            fitting, misfits = known[key]
            assigned[place] = _assign(task, fitting, misfits, left, given)
        return [assigned[place] for place in range(len(tasks))]


def _assign(
    task: ParallelTask,
    fitting: list[HostView],
    misfits: list[HostView],
    left: dict[str, int],
    given: dict[str, int],
) -> TaskAssignment:
    """Give the task to one host, and count it there: equal scores share the work."""
    here = [view for view in fitting if view.host in left]
    free = [view for view in here if left[view.host] > 0]
    if free:
        best = min(free, key=lambda view: (given[view.host] / view.slots - view.score, view.host))
        left[best.host] -= 1
        given[best.host] += 1
        reason = f"best of {len(here)} that fit, with {best.score:.3g} and a slot free"
        return TaskAssignment(task_id=task.id, agent_id=best.host, score=best.score, reason=reason)
    if here:
        reason = f"no slot is left on the {len(here)} available agents that fit"
    elif wrong := [view for view in misfits if view.host in left]:
        reason = f"{wrong[0].host} does not fit: {'; '.join(wrong[0].misfits)}"
    else:
        reason = f"none of the available agents offers {task.capability}"
    return TaskAssignment(task_id=task.id, agent_id=None, score=0.0, reason=reason)
