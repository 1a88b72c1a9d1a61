"""The settings of a board in a test: the packaged defaults, and nothing of this machine."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from callboard_config import Settings, load_settings

__all__ = ["settings_of"]

_EVERYWHERE = {"budgets.global_concurrency": 100}
_PACKAGED = "agent_routing_rules.yaml"  # a file that is named keeps `./config/` from being read


def settings_of(given: Settings | Mapping[str, object] | None) -> Settings:
    """Return the settings. given: dotted keys over the defaults. Raises `SettingsError`."""
    if isinstance(given, Settings):
        return given
    return _loaded(given) if given else _defaults()


@functools.cache
def _defaults() -> Settings:
    return _loaded({})


def _loaded(given: Mapping[str, object]) -> Settings:
    with resources.as_file(resources.files("callboard_config") / _PACKAGED) as packaged:
        overrides = {**_EVERYWHERE, **given}
        return load_settings(overrides=overrides, files=[Path(packaged)], environ={})
