"""Chooses the runner that a user named: one of an endpoint, a command, a model or a graph."""

from __future__ import annotations

from dataclasses import dataclass

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.command_runner import CommandRunner
from callboard_integrations.bmad.endpoint_runner import EndpointRunner
from callboard_integrations.bmad.langchain_runner import ChatModelRunner, GraphRunner
from callboard_integrations.bmad.runner import Runner, named_object

__all__ = ["RunnerChoice", "chosen_runner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerChoice:
    """endpoint and model; or command; or chat or graph as `package.module:name`.

    key_variable: of the environment, with the endpoint's key. timeout: seconds for an answer.
    """

    endpoint: str | None = None
    model: str | None = None
    command: str | None = None
    chat: str | None = None
    graph: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 600.0


def chosen_runner(choice: RunnerChoice) -> Runner:
    """The one runner that was named. Raises `BadInput` if it is none, or several."""
    ways = {"endpoint": choice.endpoint, "command": choice.command}
    ways |= {"chat": choice.chat, "graph": choice.graph}
    named = {name: value for name, value in ways.items() if value}
    if len(named) != 1:
        raise BadInput(
            "runner",
            "say who does the work: one of --endpoint URL --model NAME, --command LINE, "
            "--chat MODULE:NAME, --graph MODULE:NAME",
        )
    (way, value), *_ = named.items()
    if way == "command":
        return CommandRunner(value)
    if way == "chat":
        return ChatModelRunner(named_object(value, way))
    if way == "graph":
        return GraphRunner(named_object(value, way))
    if not choice.model:
        raise BadInput("model", "an endpoint needs --model NAME")
    return EndpointRunner(
        value, choice.model, key_variable=choice.key_variable, timeout=choice.timeout
    )
