"""How far a workflow is: asked once by `await`, or followed to its end by `async for`.

Counts come from the ledger, the use of CPU and memory from the last beats of the hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import msgspec

from callboard.census import take_census
from callboard.parallel.records import ParallelExecutionMetrics
from callboard_broker.client import Board
from callboard_broker.errors import BadInput, UnknownTask
from callboard_broker.streams import Topology
from callboard_ledger.views import ErrorView, FlowView, RowView

__all__ = ["Monitoring", "ask_flow", "measure"]

_Asked = msgspec.json.Decoder(RowView)


class Monitoring(Awaitable[ParallelExecutionMetrics]):
    """`await` it for the metrics of this moment; `async for` gives them every `interval` seconds
    when something has changed, and ends with the workflow.

    identify: the id on the board. Raises `UnknownTask`, and what the board raises.
    """

    def __init__(
        self,
        board: Board,
        workflow_id: str,
        identify: Callable[[], Awaitable[str]],
        interval: float = 0.5,
    ) -> None:
        self._board = board
        self._workflow_id = workflow_id
        self._identify = identify
        self._interval = interval

    def __await__(self) -> Generator[Any, None, ParallelExecutionMetrics]:
        return self._once().__await__()

    async def __aiter__(self) -> AsyncIterator[ParallelExecutionMetrics]:
        found = await self._identify()
        last: tuple[object, ...] | None = None
        while True:
            metrics = await measure(self._board, self._workflow_id, found)
            counts = (metrics.execution_status, metrics.succeeded, metrics.failed, metrics.running)
            if counts != last:
                last = counts
                yield metrics
            if metrics.ended:
                return
            await asyncio.sleep(self._interval)

    async def _once(self) -> ParallelExecutionMetrics:
        return await measure(self._board, self._workflow_id, await self._identify())


async def measure(board: Board, workflow_id: str, found: str) -> ParallelExecutionMetrics:
    """Return the metrics of the workflow `found`, under the name that its poster gave it."""
    view = await ask_flow(board, found)
    census = await take_census(board.connection, Topology(board.subjects))
    counts = dict.fromkeys(("waiting", "running", "succeeded", "failed", "cancelled"), 0)
    for step in view.steps:
        for name in counts:
            counts[name] += getattr(step, name)
        counts["cancelled"] += step.skipped
    begun = view.posted_at or 0
    until = view.ended_at or max(board.connection.server_now_ms(), begun)
    elapsed = (until - begun) / 1000
    ended = counts["succeeded"] + counts["failed"] + counts["cancelled"]
    return ParallelExecutionMetrics(
        workflow_id=workflow_id,
        execution_status=view.state,
        total=sum(counts.values()),
        elapsed_seconds=elapsed,
        tasks_per_second=ended / elapsed if elapsed > 0 else 0.0,
        hosts=len(census.hosts),
        cpu_cores=sum(seen.beat.cpu for seen in census.hosts),
        memory_mb=sum(seen.beat.memory_mb for seen in census.hosts),
        used=view.used or {},
        **counts,
    )


async def ask_flow(board: Board, found: str) -> FlowView:
    """What the ledger knows of a workflow. Raises `UnknownTask`, `NoResponder`."""
    data = await board.ask("status", {"id": found, "fresh": True})
    try:
        view = _Asked.decode(data)
    except msgspec.ValidationError:
        complaint = msgspec.json.decode(data, type=ErrorView).error
        if complaint.type == "UnknownTask":
            raise UnknownTask(found, board.options.tenant) from None
        raise BadInput(complaint.field or "workflow_id", complaint.message) from None
    if not isinstance(view, FlowView):
        raise BadInput("workflow_id", f"{found} is a {type(view).__name__[:-4].lower()}")
    return view
