"""Which items and namespaces an operation of the store means, by LangGraph's rules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from langgraph.store.base import MatchCondition

from callboard_broker.errors import BadInput

__all__ = ["holds", "matches"]

_NUMBERS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
)


def holds(value: Any, wanted: Any) -> bool:
    """Whether a field is as a filter wants it: equal, inside, or by `$eq $ne $gt $gte $lt $lte`.

    Raises `BadInput` for another operator, `TypeError` or `ValueError` where a number is compared
    with what is none.
    """
    if isinstance(wanted, Mapping):
        if any(key.startswith("$") for key in wanted):
            return all(_compares(value, name, operand) for name, operand in wanted.items())
        return isinstance(value, Mapping) and all(
            holds(value.get(key), each) for key, each in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(holds(*pair) for pair in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _compares(value: Any, name: str, operand: Any) -> bool:
    if name == "$eq":
        return bool(value == operand)
    if name == "$ne":
        return bool(value != operand)
    if name not in _NUMBERS:
        raise BadInput("filter", f"there is no operator {name[:80]!r}")
    return _NUMBERS[name](float(value), float(operand))


def matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    """Whether a namespace begins, or ends, with a path; `*` stands for any one word."""
    path = tuple(condition.path)
    if condition.match_type not in ("prefix", "suffix"):
        raise BadInput("match_type", f"{condition.match_type!r:.80} is neither prefix nor suffix")
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)]
    if condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", found) for wanted, found in zip(path, part, strict=True))
