"""`agent_node("review.python")`: a node of a graph whose work is done by a remote agent.

The remote task is found again over resumptions (`remote_task`), is cancelled with the node, and its
progress is the node's: it goes to `stream_mode="custom"` and counts as a heartbeat. If the agent is
a graph that asks a person, this graph asks, and the answer goes back to where it was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from langgraph.config import get_config
from langgraph.func import task
from langgraph.runtime import get_runtime
from langgraph.types import interrupt

from callboard_agents import Context
from callboard_broker.client import Board
from callboard_broker.errors import BadInput, TaskError
from callboard_broker.handle import Update
from callboard_broker.options import TaskOptions
from callboard_broker.subjects import check_capability
from callboard_integrations.langgraph.asking import answer, asked_in
from callboard_integrations.langgraph.durability import check_durability
from callboard_integrations.langgraph.remote_task import RemoteTask, run_remote
from callboard_integrations.langgraph.surroundings import current_surroundings

__all__ = ["AgentNode", "NodeOptions", "agent_node", "agent_task", "is_retryable"]

_USELESS = frozenset({"BadInput", "GiveUp", "TooLarge"})


class NodeOptions(TaskOptions, total=False):
    """Keywords of `agent_node`, as of `Board.submit`: they apply to each task that it posts.

    tenant: whose task it is (inside of a `graph_agent` it is always the agent's own). priority: 0
    (last) to 9 (first). timeout: seconds that the handler may run.
    """

    tenant: str
    priority: int
    timeout: float


class AgentNode:
    """A node, to be given to `add_node`. Made by `agent_node`."""

    def __init__(
        self,
        capability: str,
        board: Board | Callable[[], Board] | None,
        reads: str | Sequence[str] | None,
        writes: str | None,
        options: Mapping[str, Any],
    ) -> None:
        self.capability = check_capability(capability)
        self.reads = reads
        self.writes = writes
        self.options = dict(options)
        self._board = board
        self.__name__ = f"agent_{capability.replace('.', '_')}"

    def __repr__(self) -> str:
        return f"<AgentNode {self.capability}>"

    async def __call__(self, state: Any) -> Any:
        """Run it for a state. Raises `DurabilityRefused`, and what `Handle.result` raises."""
        result = await self.run(self._payload(state))
        return result if self.writes is None else {self.writes: result}

    async def run(self, payload: Any) -> Any:
        """Post the payload, or join what was posted for it, and return the result."""
        config, runtime = get_config(), get_runtime()
        check_durability(config, f"agent_node({self.capability!r})")
        info = runtime.execution_info
        kept = info is not None and info.thread_id is not None
        place = f"{info.thread_id}/{info.task_id}" if info is not None and kept else ""
        poster = self._poster()
        attempt = info.node_attempt if info is not None else 1

        def heard(task: str, update: Update) -> None:
            runtime.heartbeat()
            if update.progress is not None:
                runtime.stream_writer(
                    {"capability": self.capability, "task": task, "progress": update.progress}
                )

        def remote(payload: Any, place: str, attempt: int) -> RemoteTask:
            return RemoteTask(
                capability=self.capability,
                payload=payload,
                place=place,
                attempt=attempt,
                options=self.options,
            )

        around = current_surroundings() if place else None
        spot = f"{info.task_id}/{self.capability}" if info is not None else ""
        before = await around.question(spot) if around is not None else None
        result = before or await run_remote(remote(payload, place, attempt), poster, heard)
        if around is not None and before is None and asked_in(result) is not None:
            await around.keep_question(spot, result)
        while (asked := asked_in(result)) is not None:
            answers = {each.id: interrupt(each.value) for each in asked.questions}
            names = "-".join(answers)
            result = await run_remote(
                remote(answer(asked, answers), place and f"{place}/{names}", 1), poster, heard
            )
        return result

    def _payload(self, state: Any) -> Any:
        if self.reads is None:
            return state
        if isinstance(self.reads, str):
            return _field(state, self.reads)
        return {name: _field(state, name) for name in self.reads}

    def _poster(self) -> Board | Context:
        if isinstance(self._board, Board):
            return self._board
        if self._board is not None:
            return self._board()
        around = current_surroundings()
        if around is None:
            raise BadInput(
                "board",
                f"agent_node({self.capability!r}) has none: pass board=, or a function that "
                "returns it; only a graph that runs as a graph_agent needs none",
            )
        return around.context


def agent_node(
    capability: str,
    *,
    board: Board | Callable[[], Board] | None = None,
    reads: str | Sequence[str] | None = None,
    writes: str | None = None,
    **options: Unpack[NodeOptions],
) -> AgentNode:
    """A node that has its work done by an agent of `capability`.

    board: where to post, or a function that returns it when the node runs; inside of a
    `graph_agent` it may be left out, and the tasks are children of the agent's own. reads: the key
    of the state that is the payload, or keys that make a dict of it; by default the whole state (or
    what `Send` gives). writes: the key that gets the result; by default the result is the update.
    options: see `NodeOptions`. Raises `BadInput`.
    """
    return AgentNode(capability, board, reads, writes, options)


def agent_task(
    capability: str,
    *,
    board: Board | Callable[[], Board] | None = None,
    **options: Unpack[NodeOptions],
) -> Any:
    """The same for LangGraph's functional API: `review = agent_task("review", board=board)`.

    In an `@entrypoint`, `await review(payload)`. Raises `BadInput`.
    """
    node = AgentNode(capability, board, None, None, options)

    async def run(payload: Any) -> Any:
        return await node.run(payload)

    run.__name__ = run.__qualname__ = node.__name__
    return task(run)


def is_retryable(error: Exception) -> bool:
    """For `RetryPolicy(retry_on=is_retryable)`: LangGraph's own rule refuses every remote failure.

    True for a remote task that failed or expired, but for errors that no repetition cures, and for
    whatever is a matter of connections and time.
    """
    if isinstance(error, TaskError):
        return getattr(error.error, "type", "") not in _USELESS
    return isinstance(error, ConnectionError | TimeoutError | asyncio.TimeoutError)


def _field(state: Any, name: str) -> Any:
    if isinstance(state, Mapping):
        return state.get(name)
    return getattr(state, name, None)
