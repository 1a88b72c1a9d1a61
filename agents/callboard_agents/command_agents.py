"""`command_agent("test.run", ["pytest", "-q"])`: an agent from a command line, in any language."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from callboard_agents.agent import Agent
from callboard_agents.command import Output, find_command
from callboard_agents.declaration import Declaration
from callboard_agents.limits import Limits

__all__ = ["AgentOptions", "command_agent"]


class AgentOptions(TypedDict, total=False):
    """What any agent may declare beside its capability; as for `agent`."""

    slots: int | None
    timeout: float | None
    memory_mb: float | None
    cpu: float | None
    name: str | None
    version: str
    specialization: Sequence[str]
    labels: Mapping[str, str]
    limits: Limits


def command_agent(
    capability: str,
    command: Sequence[str],
    *,
    output: Output = "json",
    env: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] = ".",
    **declared: Unpack[AgentOptions],
) -> Agent[[Any], Any]:
    """Declare that `command` works on tasks of `capability`, each in a child process of its own.

    It reads the payload as JSON from its standard input, and prints its result: one JSON document,
    or with output="text" anything, which becomes one string. What it writes to standard error is
    logged; a line `::progress {...}` is the task's progress. An exit code but 0 is the failure
    `CommandFailed`. env: its environment, of which nothing is inherited. folder: where words that
    begin with ./ are; by default the present one. declared: as for `agent`. Raises `BadInput` that
    names the field, also if there is no such program.
    """
    found = find_command(command, folder=Path(folder), output=output, env=env or {})
    named: AgentOptions = {"name": Path(found.words[0]).name[:128], **declared}
    declaration = Declaration(capability=capability, isolation="process", command=found, **named)
    return Agent(found, declaration)
