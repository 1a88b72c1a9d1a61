"""`graph_agent(graph, capability="docs.write")`: a whole graph as an agent.

The task's id is the thread, so another attempt goes on from the last checkpoint and runs nothing
again that had ended; what its nodes have posted is joined. The attempt holds the thread's lease: an
older one that still lives somewhere can store nothing more. Threads whose graph has ended are
deleted by later tasks, once the board holds their outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command, StateSnapshot

from callboard_agents import Agent, Context, agent
from callboard_broker.errors import BadInput, CallboardError
from callboard_config import load_settings
from callboard_integrations.langgraph.asking import Asked, Question, read_answers
from callboard_integrations.langgraph.declared import AgentOptions
from callboard_integrations.langgraph.opening import Opening
from callboard_integrations.langgraph.saver import JetStreamSaver
from callboard_integrations.langgraph.surroundings import Surroundings, within

__all__ = ["graph_agent"]

_STEPS = 1000  # supersteps; LangGraph's own limit of 25 is made for graphs that talk to people


def graph_agent(
    graph: StateGraph[Any, Any, Any, Any] | Pregel[Any, Any, Any, Any],
    *,
    capability: str,
    saver: Callable[[], Opening[JetStreamSaver]] | None = None,
    **declared: Unpack[AgentOptions],
) -> Agent[..., Any]:
    """An agent whose handler runs `graph`: the payload is its input, its output the result.

    saver: opens the checkpoints' saver, e.g. with types to allow; by default that of the host's own
    board. declared: as for `@agent`. A graph that interrupts itself ends its task with
    `{"__interrupt__": [{"id", "value"}], "thread"}`; `agent_node` knows what to do with it.
    Raises `BadInput`.
    """
    built = graph.compile() if isinstance(graph, StateGraph) else graph
    opened = saver or _own_saver

    async def run_graph(payload: Any, ctx: Context) -> Any:
        async with opened() as checkpoints:
            result = await _run(built.copy(update={"checkpointer": checkpoints}), payload, ctx)
            await _sweep(checkpoints, ctx)
            return result

    run_graph.__name__ = str(getattr(built, "name", "") or "graph").replace(" ", "_")
    run_graph.__doc__ = f"Runs the graph {built.name}."
    return agent(capability, **declared)(run_graph)


def _own_saver() -> Opening[JetStreamSaver]:
    settings = load_settings()
    url = settings.nats.url or "nats://127.0.0.1:4222"
    return JetStreamSaver.from_url(url, prefix=settings.board.prefix)


async def _run(graph: Pregel[Any, Any, Any, Any], payload: Any, ctx: Context) -> Any:
    answers = read_answers(payload)
    own = f"{ctx.tenant}/{ctx.task}"
    thread = answers.thread if answers is not None else own
    if not thread.startswith(f"{ctx.tenant}/"):
        raise BadInput("thread", f"{thread[:80]!r} is of another tenant")
    config: RunnableConfig = {"configurable": {"thread_id": thread}, "recursion_limit": _STEPS}
    checkpoints: Any = graph.checkpointer
    async with checkpoints.lease(thread, take_over=True):
        state = await graph.aget_state(config)
        begin = _beginning(state, payload, None if answers is None else answers.answers)
        if begin is not _NOTHING:
            with within(Surroundings(ctx, checkpoints, thread)):
                async for told in graph.astream(
                    begin, config, stream_mode="custom", durability="sync"
                ):
                    ctx.progress(told)
            state = await graph.aget_state(config)
        questions = [
            Question(each.id, each.value) for task in state.tasks for each in task.interrupts
        ]
        if not questions:
            await checkpoints.anote_end(thread, tenant=ctx.tenant, task=ctx.task)
    if questions:
        return msgspec.to_builtins(Asked(questions, thread), enc_hook=_as_it_is)
    return _output(graph, state.values)


async def _sweep(checkpoints: JetStreamSaver, ctx: Context) -> None:
    """Delete what earlier tasks have left. It is no reason to fail: the next task tries again."""
    try:
        await checkpoints.asweep_ended()
    except (CallboardError, TimeoutError) as error:
        ctx.log.warning("ended threads are not deleted: %s", error)


_NOTHING: Any = object()


def _beginning(state: StateSnapshot, payload: Any, answers: dict[str, Any] | None) -> Any:
    """What the graph is called with: its input, nothing to go on, or answers; or not at all."""
    if state.created_at is None:
        if answers is not None:
            raise BadInput("thread", "there is no such thread: its checkpoints were deleted")
        return payload
    open_questions = {each.id for task in state.tasks for each in task.interrupts}
    given = {name: value for name, value in (answers or {}).items() if name in open_questions}
    if given:
        return Command(resume=given)
    return None if state.next and not open_questions else _NOTHING


def _output(graph: Pregel[Any, Any, Any, Any], values: Any) -> Any:
    channels = graph.output_channels
    if isinstance(channels, str) or not isinstance(values, dict):
        return values
    return {name: values[name] for name in channels if name in values}


def _as_it_is(value: Any) -> Any:
    """What JSON cannot hold is for the host's own encoder to refuse, by name."""
    return value
