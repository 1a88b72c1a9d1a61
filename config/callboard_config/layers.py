"""Layers of settings, laid one over the other: the later wins, value by value.

Each value keeps the source that gave it. A name that no model knows is refused here, while it is
still known which file, variable or option it stood in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callboard_config.errors import SettingsError
from callboard_config.keys import child, is_branch, known_keys, suggestion
from callboard_config.section import Section
from callboard_config.settings import FILES, Settings

__all__ = ["Layers"]


class Layers:
    """What was given so far: `tree`, nested as the models are, and the origin of each key."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def lay(
        self, given: Mapping[str, object], origin: str, *, within: type[Section] = Settings
    ) -> None:
        """Lay `given` over what is there. `within`: the model of the file that it stands in."""
        self._lay(self.tree, given, origin, kind=within, path=())

    def lay_value(self, path: tuple[str, ...], value: object, origin: str) -> None:
        """Lay one value over what is there."""
        for name in reversed(path):
            value = {name: value}
        if isinstance(value, Mapping):
            self.lay(value, origin)

    def _lay(
        self,
        tree: dict[str, Any],
        given: Mapping[str, object],
        origin: str,
        *,
        kind: Any,
        path: tuple[str, ...],
    ) -> None:
        for name, value in given.items():
            here = (*path, name)
            key = ".".join(here)
            below = child(kind, name)
            if below is None:
                raise _unknown(here, origin, kind)
            if not is_branch(below):
                tree[name] = value
            elif value is None:  # a heading whose lines are all commented out gives nothing
                continue
            elif isinstance(value, Mapping):
                self._lay(tree.setdefault(name, {}), value, origin, kind=below, path=here)
            else:
                raise SettingsError(
                    key,
                    "holds keys of its own and no single value; write them below it",
                    source=origin,
                )
            self.origins[key] = origin


def _unknown(path: tuple[str, ...], origin: str, kind: Any) -> SettingsError:
    key = ".".join(path)
    for file, model in FILES.items():
        if len(path) == 1 and key in model.model_fields and kind is not model:
            return SettingsError(key, f"belongs into {file}; move it there", source=origin)
    known = [".".join(known) for known in known_keys(Settings)]
    if key in known:
        return SettingsError(
            key, f"is one dotted word here; nest it, as in `{_nested(key)}`", source=origin
        )
    sections = {name.rpartition(".")[0] for name in known} - {""}
    return SettingsError(
        key,
        f"there is no such setting; {suggestion(key, [*known, *sorted(sections)])}",
        source=origin,
    )


def _nested(key: str) -> str:
    first, *rest = key.split(".")
    return f"{first}: " + "".join(f"{{{part}: " for part in rest) + "..." + "}" * len(rest)
