"""Where settings come from: command line > environment > files > packaged defaults.

Every source is laid over the ones before it, value by value, and only the result is validated;
an error still names the source of the value that is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from callboard_config.document import parse_value, read_document
from callboard_config.environment import CONFIG_VARIABLE, variables
from callboard_config.errors import SettingsError
from callboard_config.keys import at, is_branch, is_text, nullable
from callboard_config.layers import Layers
from callboard_config.refusal import refusal
from callboard_config.settings import FILES, Settings

__all__ = ["load_settings"]

COMMAND_LINE = "command line"
_USER_DIRECTORY = Path("config")


def load_settings(
    *,
    overrides: Mapping[str, object] | None = None,
    files: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings in force. Raises SettingsError.

    overrides: dotted keys, e.g. `{"lease.lease_seconds": 5}`. Text is read as an environment
    variable's is; None means that the option was not given (the text `null` sets null).
    files: directories or files named as the packaged ones, the last wins; without any, what
    CALLBOARD_CONFIG names, else `./config/` as far as it holds such files. Each may set only some
    of the keys.
    environ: instead of `os.environ`.
    """
    environ = os.environ if environ is None else environ
    layers = Layers()
    _lay_defaults(layers)
    for path in _files(files, environ):
        origin = f"file {path}"
        layers.lay(read_document(path, origin), origin, within=FILES[path.name])
    for keys, text, origin in variables(environ):
        layers.lay_value(keys, _read(text, keys, origin), origin)
    for key, value in (overrides or {}).items():
        if value is not None:
            keys = tuple(key.split("."))
            if isinstance(value, str):
                value = _read(value, keys, COMMAND_LINE)  # noqa: PLW2901  the same value, read
            layers.lay_value(keys, value, COMMAND_LINE)
    try:
        return Settings.model_validate(layers.tree, context=layers.origins)
    except ValidationError as error:
        raise refusal(error, layers.tree, layers.origins) from None


def _lay_defaults(layers: Layers) -> None:
    for name, model in FILES.items():
        with resources.as_file(resources.files("callboard_config") / name) as path:
            origin = f"default ({name})"
            layers.lay(read_document(path, origin), origin, within=model)


def _read(text: str, keys: tuple[str, ...], source: str) -> object:
    """Read text by the type of the setting: an address or path as it is, all else as in a file."""
    kind = at(Settings, keys)
    if kind is None or is_branch(kind) or not is_text(kind):
        return parse_value(text, key=".".join(keys), source=source)
    return None if text == "null" and nullable(kind) else text


def _files(given: Sequence[Path], environ: Mapping[str, str]) -> list[Path]:
    if not given and environ.get(CONFIG_VARIABLE):
        given = [Path(environ[CONFIG_VARIABLE])]
    if not given:
        return _within(_USER_DIRECTORY.absolute()) if _USER_DIRECTORY.is_dir() else []
    found: list[Path] = []
    for path in (path.absolute() for path in given):
        source = f"file {path}"
        if path.is_dir():
            inside = _within(path)
            if not inside:
                raise SettingsError(
                    "", f"this directory holds none of {', '.join(FILES)}", source=source
                )
            found += inside
        elif not path.exists():
            raise SettingsError("", "there is no such file or directory", source=source)
        elif path.name not in FILES:
            raise SettingsError(
                "",
                f"its name does not say what it sets; call it {' or '.join(FILES)}",
                source=source,
            )
        else:
            found.append(path)
    return found


def _within(directory: Path) -> list[Path]:
    """Return the files of settings in the directory; one that is almost called so is refused."""
    try:
        inside = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    except OSError as error:
        raise SettingsError(
            "",
            f"cannot be read ({error.strerror}); check its permissions",
            source=f"file {directory}",
        ) from error
    for name, path in inside.items():
        meant = path.with_suffix(".yaml").name.lower().replace("-", "_")
        if path.suffix.lower() in {".yaml", ".yml"} and name not in FILES and meant in FILES:
            raise SettingsError(
                "", f"rename it to {meant}, or it is not read", source=f"file {path}"
            )
    return [inside[name] for name in FILES if name in inside]
