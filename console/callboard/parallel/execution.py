"""`ParallelExecutionAPI`: runs workflows of parallel tasks on a board, allocates agents, monitors.

A workflow runs on the board and not here: if this process dies, it goes on, and executing the same
`workflow_id` again gives its result.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from callboard.parallel.building import workflow_of
from callboard.parallel.holdings import Holdings
from callboard.parallel.monitoring import Monitoring, ask_flow, measure
from callboard.parallel.records import (
    AgentRequirement,
    ErrorHandlingConfig,
    ParallelExecutionConfig,
    ParallelTask,
    ParallelWorkflowResult,
    ParallelWorkflowState,
)
from callboard.parallel.routing import find_candidates
from callboard_agents.allocations import AgentResourceAllocation
from callboard_broker.client import Board
from callboard_broker.errors import BadInput, ResourcesExhausted, UnknownTask
from callboard_broker.handle import Handle
from callboard_broker.wire import Failure
from callboard_ledger.views import ListView, RowView, TaskView

__all__ = ["ParallelExecutionAPI"]

_AT_ONCE = 32
_MOST_ID = 120  # characters: of a workflow's name on the board


class ParallelExecutionAPI:
    """Of one board: `ParallelExecutionAPI(board)`, with the tenant that `board` posts for."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._ids: dict[str, str] = {}
        self._holdings = Holdings()

    async def execute_parallel_workflow(
        self,
        workflow_id: str,
        parallel_tasks: Sequence[ParallelTask],
        resource_config: ParallelExecutionConfig,
        *,
        error_handling: ErrorHandlingConfig | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> ParallelWorkflowResult:
        """Run the tasks, each as soon as what it depends on has succeeded, and wait for their end.

        A failure is told in the result and raises nothing; the results of what succeeded are kept.
        Raises `BadInput` that names the task's field, `Overloaded`, `BoardUnreachable`.
        """
        _check_id(workflow_id)
        errors = error_handling or ErrorHandlingConfig()
        flow = workflow_of(workflow_id, parallel_tasks, resource_config, errors, inputs or {})
        handle = await self._board.run(flow, key=f"parallel/{workflow_id}")
        self._ids[workflow_id] = handle.id
        await handle.wait()
        self._ids[workflow_id] = handle.id  # of the first run, if this one repeats it
        return await self._result(workflow_id, handle, parallel_tasks, resource_config, errors)

    async def allocate_agent_resources(
        self, agent_requirements: Sequence[AgentRequirement]
    ) -> list[AgentResourceAllocation]:
        """Give each requirement a slot, the CPU and the memory of the host that suits it best; the
        answer is in their order. All of them are allocated, or none.

        What is held here, what a host has promised to the attempts that it runs, and what it has
        left never add up to more than the host has, until `release_agent_resources`. A task gets
        there by `TaskRequirements(stay_with=agent_id)`.
        Raises `ResourcesExhausted` that says what is lacking, `BadInput`, `NoResponder`.
        """
        order = sorted(
            range(len(agent_requirements)),
            key=lambda place: (-agent_requirements[place].priority, place),
        )
        found: dict[int, AgentResourceAllocation] = {}
        try:
            for place in order:
                wanted = agent_requirements[place]
                views, _ = await find_candidates(self._board, wanted.capability, wanted.needs())
                found[place] = self._holdings.take(wanted, views)
        except ResourcesExhausted:
            self._holdings.release(list(found.values()))
            raise
        return [found[place] for place in range(len(agent_requirements))]

    async def release_agent_resources(self, allocations: Sequence[AgentResourceAllocation]) -> None:
        """Give back what was allocated. Raises `BadInput` for what this object does not hold."""
        self._holdings.release(allocations)

    def monitor_parallel_execution(self, workflow_id: str) -> Monitoring:
        """`await` it for the `ParallelExecutionMetrics` of this moment; `async for` follows the
        workflow to its end. workflow_id: as it was executed, here or elsewhere, or the board's id.

        Raises `UnknownTask`, `NoResponder` if no ledger runs.
        """
        return Monitoring(self._board, workflow_id, lambda: self._identify(workflow_id))

    # -- inside

    async def _identify(self, workflow_id: str) -> str:
        """The board's id of the newest workflow of this name."""
        known = self._ids.get(workflow_id)
        if known is not None:
            return known
        question = {"kind": "flow", "name": workflow_id, "limit": 1, "fresh": True}
        listed = msgspec.json.decode(await self._board.ask("list", question), type=ListView)
        if listed.items:
            return listed.items[0].id
        if workflow_id.isdecimal():
            return workflow_id
        raise UnknownTask(workflow_id, self._board.options.tenant)

    async def _result(
        self,
        workflow_id: str,
        handle: Handle,
        tasks: Sequence[ParallelTask],
        config: ParallelExecutionConfig,
        errors: ErrorHandlingConfig,
    ) -> ParallelWorkflowResult:
        metrics = await measure(self._board, workflow_id, handle.id)
        rows = await self._rows(handle.id, tasks)
        results: dict[str, Any] = {}
        failures: dict[str, Failure] = {}
        allocations: dict[str, AgentResourceAllocation] = {}
        for task in tasks:
            row = rows.get(task.id)
            if row is None:
                continue
            if row.state == "succeeded":
                results[task.id] = await self._value(row)
            elif row.error is not None:
                failures[task.id] = row.error
            if row.host is not None:
                allocations[task.id] = _allocation(task, row.host, config)
        view = await ask_flow(self._board, handle.id)
        state = ParallelWorkflowState(
            workflow_id=workflow_id,
            parallel_tasks=list(tasks),
            resource_allocations=allocations,
            execution_status=view.state,
            performance_metrics=metrics.figures(),
            error_handling=errors,
        )
        return ParallelWorkflowResult(
            workflow_id=workflow_id,
            id=handle.id,
            status=view.state,
            results=results,
            errors=failures,
            error=view.error,
            metrics=metrics,
            state=state,
        )

    async def _rows(self, flow: str, tasks: Sequence[ParallelTask]) -> dict[str, TaskView]:
        """What the ledger has of each task that ever began."""
        turns = asyncio.Semaphore(_AT_ONCE)
        found: dict[str, TaskView] = {}

        async def ask(task: ParallelTask) -> None:
            async with turns:
                data = await self._board.ask("status", {"id": f"{flow}.{task.id}.0"})
            try:
                view = msgspec.json.decode(data, type=RowView)
            except msgspec.ValidationError:
                return  # it was never begun, because something before it has failed
            if isinstance(view, TaskView):
                found[task.id] = view

        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(ask(task))
        return found

    async def _value(self, row: TaskView) -> Any:
        if row.result_blob is not None:
            return msgspec.json.decode(await self._board.blob(row.result_blob))
        return msgspec.json.decode(row.result) if isinstance(row.result, msgspec.Raw) else None


def _check_id(workflow_id: str) -> None:
    fits = isinstance(workflow_id, str) and 1 <= len(workflow_id) <= _MOST_ID
    if not fits or not workflow_id.isprintable():
        raise BadInput("workflow_id", f"{workflow_id!r:.80} is not a text of 1 to {_MOST_ID}")


def _allocation(
    task: ParallelTask, host: str, config: ParallelExecutionConfig
) -> AgentResourceAllocation:
    """What the task was given, as far as it said what it needs."""
    wanted = task.requirements
    return AgentResourceAllocation(
        agent_id=host,
        cpu_cores=math.ceil((wanted and wanted.cpu_cores) or 0),
        memory_mb=math.ceil((wanted and wanted.memory_mb) or 0),
        timeout_seconds=math.ceil(task.timeout_seconds or config.timeout_per_agent),
        priority=task.priority,
        specialization=[] if wanted is None else list(wanted.specialization),
        current_workload=0.0,
    )
