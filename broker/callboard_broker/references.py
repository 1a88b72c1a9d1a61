"""`{"from": "plan", "path": "files"}` in a payload stands for a value out of an earlier result.

A reference is an object with the key `from` and at most the key `path` beside it. `find` lists the
references of a template, so that a workflow is checked when it is posted; a `Template` puts the
values in, when a step is dispatched, and has been taken apart only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.wire import Ref

__all__ = ["INPUTS", "ITEM", "Template", "fill", "find", "select"]

INPUTS = "inputs"
ITEM = "item"

_KEYS = ({"from"}, {"from", "path"})


def find(template: Any, where: str) -> Iterator[tuple[str, Ref]]:
    """Yield (place, reference) for each reference in `template`. Raises `BadInput` for a bad one.

    where: the field's name for messages, e.g. `steps[2].payload`.
    """
    if isinstance(template, dict):
        if template.keys() in _KEYS:
            yield where, _reference(template, where)
            return
        for name, value in template.items():
            yield from find(value, f"{where}.{name}")
    elif isinstance(template, list):
        for index, value in enumerate(template):
            yield from find(value, f"{where}[{index}]")


def fill(template: Any, value_of: Callable[[Ref], Any]) -> Any:
    """Return `template` with each reference replaced by `value_of(reference)`."""
    if isinstance(template, dict):
        if template.keys() in _KEYS:
            return value_of(_reference(template, "payload"))
        return {name: fill(value, value_of) for name, value in template.items()}
    if isinstance(template, list):
        return [fill(value, value_of) for value in template]
    return template


class Template:
    """JSON with references, cut at them: filling it is joining the pieces.

    refs: the references in it, in order. Raises `BadInput` for a bad one.
    """

    __slots__ = ("_pieces", "refs")

    def __init__(self, raw: bytes | msgspec.Raw) -> None:
        pieces: list[bytes | Ref] = []
        _cut(msgspec.json.decode(raw), pieces)
        self._pieces: list[bytes | Ref] = []
        for piece in pieces:
            last = self._pieces[-1] if self._pieces else None
            if isinstance(piece, bytes) and isinstance(last, bytes):
                self._pieces[-1] = last + piece
            else:
                self._pieces.append(piece)
        self.refs = [piece for piece in self._pieces if isinstance(piece, Ref)]

    def fill(self, json_of: Callable[[Ref], bytes]) -> bytes:
        """The JSON with `json_of(reference)` in the place of each reference."""
        return b"".join(
            [piece if isinstance(piece, bytes) else json_of(piece) for piece in self._pieces]
        )


def _cut(template: Any, pieces: list[bytes | Ref]) -> None:
    if isinstance(template, dict):
        if template.keys() in _KEYS:
            pieces.append(_reference(template, "payload"))
            return
        before = b"{"
        for name, value in template.items():
            pieces.append(before + msgspec.json.encode(name) + b":")
            _cut(value, pieces)
            before = b","
        pieces.append(b"}" if template else b"{}")
    elif isinstance(template, list):
        before = b"["
        for value in template:
            pieces.append(before)
            _cut(value, pieces)
            before = b","
        pieces.append(b"]" if template else b"[]")
    else:
        pieces.append(msgspec.json.encode(template))


def select(value: Any, path: str, source: str) -> Any:
    """Return what stands at the dotted `path`. Raises `BadInput` that says what is there."""
    walked = source
    for part in path.split(".") if path else ():
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise BadInput("payload", f"{walked} has no {part!r}: it holds {_shape(value)}")
        walked = f"{walked}.{part}"
    return value


def _reference(found: dict[str, Any], where: str) -> Ref:
    try:
        return msgspec.convert(found, Ref)
    except msgspec.ValidationError as error:
        raise BadInput(where, f"not a reference: {error}") from error


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        names = ", ".join(sorted(map(str, value))[:8])
        return f"an object with {names}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else f"a {type(value).__name__}"
