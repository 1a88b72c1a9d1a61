"""`ParallelExecutionEngine`: a board and, if wanted, a pool of agent processes, for workflows.

async with ParallelExecutionEngine(ParallelExecutionConfig(), agents=["my_agents.py"]) as engine:
    result = await engine.execute_parallel_workflow(workflow)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from callboard.connecting import connect, locate
from callboard.hosting import host_options, scaling_policy
from callboard.parallel.execution import ParallelExecutionAPI
from callboard.parallel.records import (
    ParallelExecutionConfig,
    ParallelWorkflow,
    ParallelWorkflowResult,
)
from callboard_agents.pool import LocalPool
from callboard_broker.subjects import SHARED_POOL

__all__ = ["ParallelExecutionEngine"]


class ParallelExecutionEngine:
    """Executes workflows on the board that `connect(url)` finds.

    agents: modules of agents that this engine runs in processes of its own, with the limits of
    `config`: as many as the work asks for if `auto_scaling_enabled`, else one for each CPU.
    `async with` keeps board and pool open; without it each execution opens them for itself.
    """

    def __init__(
        self,
        config: ParallelExecutionConfig,
        *,
        agents: Sequence[str] = (),
        url: str | None = None,
        prefix: str | None = None,
        tenant: str = "default",
    ) -> None:
        self.config = config
        self._agents = list(agents)
        self._url = url
        self._prefix = prefix
        self._tenant = tenant
        self._stack = AsyncExitStack()
        self._api: ParallelExecutionAPI | None = None

    async def __aenter__(self) -> Self:
        """Raises `BoardUnreachable`, `BadInput` for agents that cannot be loaded."""
        self._api = await self._stack.enter_async_context(self._opened())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._api = None
        await self._stack.__aexit__(kind, error, trace)

    async def execute_parallel_workflow(self, workflow: ParallelWorkflow) -> ParallelWorkflowResult:
        """Run it to its end; see `ParallelExecutionAPI.execute_parallel_workflow`."""
        if self._api is not None:
            return await self._execute(self._api, workflow)
        async with self._opened() as api:
            return await self._execute(api, workflow)

    async def _execute(
        self, api: ParallelExecutionAPI, workflow: ParallelWorkflow
    ) -> ParallelWorkflowResult:
        return await api.execute_parallel_workflow(
            workflow.workflow_id,
            workflow.parallel_tasks,
            self.config,
            error_handling=workflow.error_handling,
            inputs=workflow.inputs,
        )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[ParallelExecutionAPI]:
        async with AsyncExitStack() as stack:
            board = await stack.enter_async_context(
                connect(self._url, prefix=self._prefix, tenant=self._tenant)
            )
            if self._agents:
                await stack.enter_async_context(self._pool())
            yield ParallelExecutionAPI(board)

    @asynccontextmanager
    async def _pool(self) -> AsyncIterator[None]:
        """The engine's own agent processes; they end with it, and finish what they run."""
        config = self.config
        place = locate(self._url, self._prefix)
        options = host_options(place, pool=SHARED_POOL)
        limits = replace(
            options.limits,
            memory_mb=config.memory_limit_per_agent,
            cpu=config.cpu_limit_per_agent,
        )
        options = replace(options, limits=limits, timeout_seconds=config.timeout_per_agent)
        scaling = scaling_policy(place, 1, "auto")
        if scaling is not None and not config.auto_scaling_enabled:
            scaling = replace(scaling, least=scaling.most)
        pool = LocalPool(self._agents, options, scaling=scaling)
        raised: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(pool.run())
                try:
                    yield
                except BaseException as error:
                    raised = error
                    raise
                finally:
                    pool.stop()
                    await asyncio.wait([running])
        except BaseExceptionGroup as found:
            # The pool keeps a task group; what the caller's own block raises shall stay as it is.
            if raised is not None and found.exceptions == (raised,):
                raise raised from None
            raise
