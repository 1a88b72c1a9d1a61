"""Turn what pydantic says about the merged settings into an error that names each source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from callboard_config.errors import SettingsError
from callboard_config.keys import child, is_branch
from callboard_config.section import DISAGREEMENT
from callboard_config.settings import SECRETS, Settings

__all__ = ["refusal"]

_SHOWN = 60


def refusal(
    error: ValidationError, tree: Mapping[str, Any], origins: Mapping[str, str]
) -> SettingsError:
    """Return one error for all that is wrong; `.key` and `.source` are those of the first."""
    wrong: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        keys = _keys(detail)
        # Of settings that disagree, name the one that somebody set, not a default.
        key = next(
            (key for key in keys if not _source(key, origins).startswith("default")), keys[0]
        )
        against = [f"{_value(k, tree)} for {k} ({_source(k, origins)})" for k in keys if k != key]
        reason = _reason(detail) + "".join(f"; it stands against {other}" for other in against)
        wrong.setdefault(key, []).append(reason)
    told = [
        (key, f"{_value(key, tree)} is not acceptable: {' or '.join(dict.fromkeys(reasons))}")
        for key, reasons in wrong.items()
    ]
    (first, reason), *rest = told
    more = "".join(f"; and {key} ({_source(key, origins)}): {why}" for key, why in rest)
    return SettingsError(first, reason + more, source=_source(first, origins))


def _keys(detail: ErrorDetails) -> list[str]:
    """Return the dotted keys that the error is about."""
    path: list[str] = []
    kind: Any = Settings
    for name in detail["loc"]:  # goes on below a key, with list indices and branches of unions
        if not is_branch(kind) or (kind := child(kind, str(name))) is None:
            break
        path.append(str(name))
    if detail["type"] == DISAGREEMENT:
        return [".".join([*path, key]) for key in detail.get("ctx", {})["keys"]]
    return [".".join(path)]


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "a value is needed"
    message = detail["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _source(key: str, origins: Mapping[str, str]) -> str:
    """Return the key's origin; of one that is missing, that of the section it is missing from."""
    while key not in origins and "." in key:
        key = key.rpartition(".")[0]
    return origins[key]


def _value(key: str, tree: Mapping[str, Any]) -> str:
    if key in SECRETS:
        return "this value"
    value: Any = tree
    for name in key.split("."):
        if name not in value:
            return "nothing"
        value = value[name]
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
