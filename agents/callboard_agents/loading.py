"""Finds the agents in modules and files, as a person names them on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from callboard_agents.agent import Agent
from callboard_broker.errors import BadInput

__all__ = ["is_command_file", "load", "load_module", "shown_module"]

_FILE = "callboard_file_"


def is_command_file(place: str) -> bool:
    """Whether a place is a YAML file of command agents."""
    return place.partition(":")[0].endswith((".yaml", ".yml"))


def load(places: Sequence[str]) -> list[Agent[..., Any]]:
    """Return the agents of `package.module`, `path/to/file.py`, or `package.module:name`; of
    `path/to/file.yaml`, the command agents, or `file.yaml:capability`.

    Raises `BadInput` that names the place: it cannot be imported (the cause is the error), it
    holds no agent, or two agents offer one capability.
    """
    if not places:
        raise BadInput("modules", "name at least one module or file that holds agents")
    found: dict[str, tuple[Agent[..., Any], str]] = {}
    for place in places:
        for agent in _agents_in(place):
            before = found.setdefault(agent.capability, (agent, place))
            if before[0] is not agent:
                raise BadInput(
                    place,
                    f"{agent.name} offers {agent.capability}, and so does {before[0].name} of "
                    f"{before[1]}; one host serves a capability once",
                )
    return [agent for agent, _ in found.values()]


def _agents_in(place: str) -> list[Agent[..., Any]]:
    where, _, name = place.partition(":")
    if is_command_file(place):
        return _commands(place, Path(where), name)
    module = load_module(where)
    agents = _of_module(module, place, name)
    for agent in agents:
        if module.__name__ not in agent.modules:
            agent.modules = (module.__name__, *agent.modules)
    return agents


def load_module(where: str) -> ModuleType:
    """Return the module of `package.module` or `path/to/file.py`. Raises `BadInput`."""
    return _file(where) if where.endswith(".py") or "/" in where else _module(where)


def shown_module(name: str) -> str:
    """A module's name for a person: of a file, as the file is called."""
    return name.removeprefix(_FILE).partition("_")[2] if name.startswith(_FILE) else name


def _commands(place: str, path: Path, capability: str) -> list[Agent[..., Any]]:
    """Not loaded where no such file is named: a child needs neither YAML nor pydantic."""
    from callboard_agents.command_file import read_command_agents  # noqa: PLC0415  see above

    agents = read_command_agents(path)
    if capability:
        agents = [agent for agent in agents if agent.capability == capability]
    if not agents:
        what = f"no agent of {capability!r}" if capability else "no agent"
        raise BadInput(place, f"holds {what}: give it `agents:`, each with capability and command")
    return agents


def _of_module(module: ModuleType, place: str, name: str) -> list[Agent[..., Any]]:
    if name:
        chosen = getattr(module, name, None)
        if not isinstance(chosen, Agent):
            what = "is no agent" if hasattr(module, name) else "does not exist"
            raise BadInput(place, f"{name} {what}; {_has(module)}")
        return [chosen]
    agents = _declared(module)
    if not agents:
        raise BadInput(place, 'holds no agent: decorate a function with @agent("some.capability")')
    return list(agents.values())


def _declared(module: ModuleType) -> dict[str, Agent[..., Any]]:
    """Each agent once, whatever it is called beside."""
    by_id = {id(v): (k, v) for k, v in reversed(vars(module).items()) if isinstance(v, Agent)}
    return dict(reversed(by_id.values()))


def _has(module: ModuleType) -> str:
    names = ", ".join(_declared(module)) or "none"
    return f"agents there: {names}"


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise BadInput(
                name, "no such module; it must be importable from here, or be a path/to/file.py"
            ) from error
        raise BadInput(name, f"cannot be imported: {error}") from error
    except Exception as error:
        raise BadInput(name, f"cannot be imported: {type(error).__name__}: {error}") from error


def _file(path: str) -> ModuleType:
    file = Path(path).resolve()
    if not file.is_file():
        raise BadInput(path, f"there is no file {file}")
    name = f"{_FILE}{abs(hash(str(file))):x}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BadInput(path, "is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up while it loads
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BadInput(path, f"cannot be imported: {type(error).__name__}: {error}") from error
    return module
