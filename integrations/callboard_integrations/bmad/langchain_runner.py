"""Lets a LangChain chat model or a compiled LangGraph do the work, whichever package it is from.

Both are called by `ainvoke` with a system and a human message, so that nothing of LangChain is
imported here. A graph's answer is the last of its `messages`.
"""

from __future__ import annotations

from typing import Any

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.runner import Answer, Request, RunnerFailed

__all__ = ["ChatModelRunner", "GraphRunner"]


class ChatModelRunner:
    """model: a chat model. Raises `BadInput` if it has no `ainvoke`."""

    def __init__(self, model: Any) -> None:
        self._model = _checked(model, "chat")
        self.name = type(model).__name__

    async def run(self, request: Request) -> Answer:
        options = {} if request.tokens is None else {"max_tokens": request.tokens}
        return _answer(await self._model.ainvoke(_messages(request), **options), self.name)


class GraphRunner:
    """graph: a compiled graph over a state with `messages`. Raises `BadInput`."""

    def __init__(self, graph: Any) -> None:
        self._graph = _checked(graph, "graph")
        self.name = str(getattr(graph, "name", type(graph).__name__))

    async def run(self, request: Request) -> Answer:
        state = await self._graph.ainvoke({"messages": _messages(request)})
        messages = state.get("messages") if isinstance(state, dict) else None
        if not messages:
            raise RunnerFailed(f"{self.name}: its state holds no messages at the end")
        return _answer(messages[-1], self.name)


def _checked(value: Any, field: str) -> Any:
    if not callable(getattr(value, "ainvoke", None)):
        raise BadInput(field, f"{value!r:.80} cannot be asked: it has no ainvoke")
    return value


def _messages(request: Request) -> list[tuple[str, str]]:
    return [("system", request.system), ("human", request.prompt)]


def _answer(message: Any, name: str) -> Answer:
    content = getattr(message, "content", message)
    if isinstance(content, list):  # parts, of which some are text
        parts = [part if isinstance(part, str) else part.get("text", "") for part in content]
        content = "".join(parts)
    if not isinstance(content, str):
        raise RunnerFailed(f"{name}: its answer is no text")
    usage = getattr(message, "usage_metadata", None)
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return Answer(text=content, tokens=total if isinstance(total, int) else None)
