"""The settings as a whole: every value, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import PrivateAttr

from callboard_config.agent_routing import AgentRouting
from callboard_config.errors import SettingsError
from callboard_config.keys import known_keys, suggestion
from callboard_config.nats_url import mask_nats_url
from callboard_config.parallel_execution import ParallelExecution
from callboard_config.resource_limits import ResourceLimits
from callboard_config.section import Section

__all__ = ["FILES", "SECRETS", "Setting", "Settings", "describe"]

FILES: Mapping[str, type[Section]] = {
    "parallel_execution_config.yaml": ParallelExecution,
    "resource_limits.yaml": ResourceLimits,
    "agent_routing_rules.yaml": AgentRouting,
}
"""The three files, and what each may hold."""

SECRETS = frozenset({"nats.url", "projection.to"})
"""Keys whose value no message and no listing shows as it is."""


class Settings(AgentRouting, ResourceLimits, ParallelExecution):
    """Everything that can be set, frozen. `load_settings` makes one."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Take the origins that the loader passes as the context of validation."""
        if context is not None:
            self._origins = dict(context)

    def origin(self, key: str) -> str:
        """Return where the value of a dotted key came from, e.g. `environment CALLBOARD_...`.

        For a section or a map: the last source that gave a part of it. Raises SettingsError for
        a key that does not exist.
        """
        try:
            return self._origins[key]
        except KeyError:
            known = [".".join(path) for path in known_keys(Settings)]
            raise SettingsError(
                key, f"there is no such setting; {suggestion(key, known)}", source="origin"
            ) from None


class Setting(NamedTuple):
    """One line of `callboard config show`."""

    key: str
    value: object
    """Ready for JSON; passwords are masked."""
    origin: str


def describe(settings: Settings) -> list[Setting]:
    """Return every value in force, in the order of the files, with passwords masked."""
    return list(_lines(settings, settings.model_dump(mode="json"), ()))


def _lines(settings: Settings, value: object, path: tuple[str, ...]) -> Iterator[Setting]:
    if isinstance(value, dict) and (value or not path):
        for name, below in value.items():
            yield from _lines(settings, below, (*path, name))
        return
    key = ".".join(path)
    if key in SECRETS and isinstance(value, str):
        value = mask_nats_url(value)
    yield Setting(key, value, settings.origin(key))
