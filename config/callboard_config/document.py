"""Read YAML that a stranger may have written: bounded, plain, and without its surprises.

Scalars follow YAML 1.2's core schema, so `no` is a word and not false, and `010` and `12:30:45`
are text and not 8 and 45045; a strict field then refuses them. Aliases (the building blocks of a
YAML bomb), tags, duplicate keys, deep nesting and large documents are refused by line.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from callboard_config.errors import SettingsError

__all__ = ["MAX_BYTES", "line_of", "parse_value", "read_document"]

MAX_BYTES = 256 * 1024
_MAX_DEPTH = 16


def read_document(path: Path, source: str) -> dict[str, object]:
    """Return the mapping that the file holds; an empty file is an empty mapping."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            "",
            f"cannot be read ({error.strerror}); check the path and its permissions",
            source=source,
        ) from error
    if len(raw) > MAX_BYTES:
        raise SettingsError(
            "",
            f"larger than {MAX_BYTES // 1024} KiB; settings are a page, is this the right file?",
            source=source,
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError("", "not UTF-8 text; save it as UTF-8", source=source) from error
    value = parse_value(text, key="", source=source)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(
            "",
            "must be a mapping of sections, such as `lease: {lease_seconds: 5}`",
            source=source,
        )
    return value


def parse_value(text: str, *, key: str, source: str) -> object:
    """Return the one YAML value in `text`. Raises SettingsError(key), never with the text in it."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise SettingsError(
            key, f"{line}{problem or 'not valid YAML'}; correct it there", source=source
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; an int of 5,000 digits
        raise SettingsError(
            key, "not valid YAML: a character or number that none holds", source=source
        ) from error


def line_of(path: Path, place: Sequence[str | int]) -> int:
    """Return the line (1 is the first) of `place`, by keys and indices, in a file that was read.

    Of what the file does not have, it is the line of the nearest thing around it.
    """
    loader = _Loader(path.read_text(encoding="utf-8-sig"))
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    line = 0
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pairs = [pair for pair in node.value if pair[0].value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            pairs = [(each, each) for each in node.value[part : part + 1]]
        else:
            break
        if not pairs:
            break
        line, node = pairs[0][0].start_mark.line, pairs[0][1]
    return line + 1


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own attribute, filled below

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # its stub has no types
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused("aliases and anchors (* and &) are not allowed; repeat the value", event)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags (!) are not allowed; write the plain value", event)
        if self._depth >= _MAX_DEPTH:
            raise _refused(f"nested deeper than {_MAX_DEPTH} levels", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  PyYAML's signature
        """Take each key as it is written, so that a tenant may be called `no` or `007`."""
        mapping: dict[Hashable, Any] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise _refused("a key must be a word", name)
            if name.value in mapping:
                raise _refused(f"the key {name.value!r} stands twice; keep one of them", name)
            mapping[name.value] = self.construct_object(value, deep=deep)
        return mapping


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    """Return the refusal of an event or node, with its line."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9_]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})\\Z"), _first
    )
