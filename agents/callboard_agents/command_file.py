"""Command agents as a person declares them in YAML, without any Python.

agents:
  - capability: test.run
    command: [pytest, -q, ./tests]
    output: text
    timeout: 60
    limits: {processes: 8, cpu_seconds: 30}
    env: {MODE: fast}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from callboard_agents.agent import Agent
from callboard_agents.command import Output
from callboard_agents.command_agents import command_agent
from callboard_agents.limits import Limits
from callboard_broker.errors import BadInput
from callboard_config.document import line_of, read_document
from callboard_config.errors import SettingsError

__all__ = ["read_command_agents"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _LimitsFile(_Strict):
    """As `Limits` has it."""

    cpu_seconds: float | None = None
    disk_mb: float | None = None
    output_mb: float | None = None
    files: int | None = None
    processes: int | None = None
    read: list[str] = []
    network: bool | None = None


class _AgentFile(_Strict):
    """One agent; all but `capability` and `command` may be left out, see `command_agent`."""

    capability: str
    command: list[str]
    output: Output = "json"
    env: dict[str, str] = {}
    slots: int | None = None
    timeout: float | None = None
    memory_mb: float | None = None
    cpu: float | None = None
    name: str | None = None
    version: str = ""
    specialization: list[str] = []
    labels: dict[str, str] = {}
    limits: _LimitsFile = _LimitsFile()


class _File(_Strict):
    agents: list[_AgentFile]


def read_command_agents(path: Path) -> list[Agent[..., Any]]:
    """Return the agents of a file. Raises `BadInput` that names the field, the file and the line.

    `./` is the folder of the file.
    """
    try:
        found = _File.model_validate(read_document(path, str(path)))
    except SettingsError as error:
        raise BadInput(str(path), error.reason) from error
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        # What is misspelt is also missing: the misspelt name says more.
        first = min(wrong, key=lambda each: each["type"] != "extra_forbidden")
        raise _refused(path, list(first["loc"]), first["msg"]) from error
    agents = []
    for number, said in enumerate(found.agents):
        try:
            agents.append(_agent(said, path.parent))
        except BadInput as error:
            raise _refused(
                path, ["agents", number, *error.field.split(".")], error.reason
            ) from error
    return agents


def _agent(said: _AgentFile, folder: Path) -> Agent[..., Any]:
    given = said.model_dump(exclude={"capability", "command", "limits"})
    if given["name"] is None:
        del given["name"]
    return command_agent(
        said.capability,
        said.command,
        folder=folder,
        limits=Limits(**said.limits.model_dump()),
        **given,
    )


def _refused(path: Path, place: list[str | int], reason: str) -> BadInput:
    field = ""
    for part in place:
        field += f"[{part}]" if isinstance(part, int) else f".{part}"
    line = line_of(path, place)
    return BadInput(field.lstrip("."), f"{reason} ({path}, line {line})")
