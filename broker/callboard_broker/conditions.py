"""`when`: a condition on the results of earlier steps, as JSON; true, false, or an error.

    {"value": {"from": "plan", "path": "ok"}, "equals": true}      also not_equals, above, below,
    at_least, at_most, in, exists, matches (a whole match of a regular expression)
    {"value": REF} or REF alone: the value itself, which must be a boolean
    {"all": [...]}, {"any": [...]}, {"not": {...}}

What a value is compared with may be a reference, too. Both must be of one type, and what is named
must be there: anything else is `BadInput`, never a silent false. Only `exists` may ask for what is
not there; null does not exist. Groups stop at the first part that decides them.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable
from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.patterns import ways
from callboard_broker.references import find
from callboard_broker.wire import Ref

__all__ = ["check_condition", "holds"]

_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "above": operator.gt,
    "at_least": operator.ge,
    "at_most": operator.le,
    "below": operator.lt,
}
_TESTS = ("equals", "not_equals", *_ORDERED, "in", "exists", "matches")
_AGAINST = (*_ORDERED, "in")
_GROUPS = ("all", "any", "not")
_MAX_PATTERN = 256
_MAX_MATCHED = 4096
_MOST_WAYS = 17_000_000  # two repetitions over 4,096 characters: 0.07 s
_PARTS = {"from", "path"}
# A group that is repeated and repeats inside, or a back reference, may look for hours.
_RUNAWAY = re.compile(r"\([^()]*[*+{][^()]*\)\s*[*+{]|\([^()]*\|[^()]*\)\s*[*+{]|\\[1-9]|\(\?P=")


def check_condition(condition: Any, where: str) -> list[tuple[str, Ref]]:
    """The references of a condition, each with its place. Raises `BadInput` that names the part."""
    return list(find(_checked(condition, where), where))


def holds(condition: Any, value_of: Callable[[Ref], Any]) -> bool:
    """Whether a checked condition holds. value_of: raises `BadInput` for what is not there."""
    if condition.keys() <= _PARTS:
        condition = {"value": condition}
    if "all" in condition:
        return all(holds(part, value_of) for part in condition["all"])
    if "any" in condition:
        return any(holds(part, value_of) for part in condition["any"])
    if "not" in condition:
        return not holds(condition["not"], value_of)
    ref = msgspec.convert(condition["value"], Ref)
    test, wanted = _test(condition)
    if _is_reference(wanted):
        wanted = value_of(msgspec.convert(wanted, Ref))
        if test == "in" and not isinstance(wanted, list):
            raise BadInput("when", f"`in` needs a list, not a {type(wanted).__name__}")
    if test == "exists":
        try:
            found = value_of(ref)
        except BadInput:
            found = None
        return (found is not None) is wanted
    return _passes(test, value_of(ref), wanted, ref)


def _checked(condition: Any, where: str) -> Any:
    if not isinstance(condition, dict):
        raise BadInput(where, "a condition is an object, e.g. {value: {from: plan}, equals: 3}")
    if "from" in condition:
        if not condition.keys() <= _PARTS:
            raise BadInput(where, "a reference has `from` and `path` only; a test has a `value`")
        return condition
    group = next((name for name in _GROUPS if name in condition), None)
    if group is not None:
        if len(condition) != 1:
            raise BadInput(where, f"`{group}` stands alone in its object")
        parts = condition[group]
        if group == "not":
            _checked(parts, f"{where}.not")
            return condition
        if not isinstance(parts, list) or not parts:
            raise BadInput(f"{where}.{group}", "a list of conditions, at least one")
        for index, part in enumerate(parts):
            _checked(part, f"{where}.{group}[{index}]")
        return condition
    value = condition.get("value")
    if not isinstance(value, dict) or not isinstance(value.get("from"), str):
        raise BadInput(f"{where}.value", 'a reference, e.g. {"from": "plan", "path": "ok"}')
    if not value.keys() <= _PARTS:
        raise BadInput(f"{where}.value", "a reference has `from` and `path` only")
    tests = [name for name in condition if name != "value"]
    if len(tests) > 1 or (tests and tests[0] not in _TESTS):
        known = ", ".join(_TESTS)
        raise BadInput(where, f"{', '.join(tests)}: one test is expected, of {known}")
    _check_wanted(*_test(condition), where)
    return condition


def _check_wanted(test: str, wanted: Any, where: str) -> None:
    place = f"{where}.{test}"
    if test in ("", "equals", "not_equals") or (test in _AGAINST and _is_reference(wanted)):
        return
    if test == "exists":
        fits, says = isinstance(wanted, bool), "true or false"
    elif test == "in":
        fits, says = isinstance(wanted, list), "a list"
    elif test == "matches":
        fits, says = isinstance(wanted, str), "a regular expression"
    else:
        fits, says = _is_number(wanted) or isinstance(wanted, str), "a number or a text"
    if not fits:
        raise BadInput(place, f"must be {says}")
    if test == "matches":
        _check_pattern(wanted, place)


def _check_pattern(pattern: str, place: str) -> None:
    if len(pattern) > _MAX_PATTERN:
        raise BadInput(place, f"longer than {_MAX_PATTERN} characters")
    if _RUNAWAY.search(pattern):
        raise BadInput(place, "a repeated group that repeats or chooses inside is not accepted")
    try:
        _pattern(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadInput(place, f"not a regular expression: {error}") from error


@functools.lru_cache(maxsize=512)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _test(condition: dict[str, Any]) -> tuple[str, Any]:
    return next(((name, wanted) for name, wanted in condition.items() if name != "value"), ("", 0))


def _passes(test: str, found: Any, wanted: Any, ref: Ref) -> bool:
    if test == "equals":
        return _same(found, wanted)
    if test == "not_equals":
        return not _same(found, wanted)
    if test == "in":
        return any(_same(found, one) for one in wanted)
    if test == "matches":
        if not isinstance(found, str):
            raise _wrong(ref, found, "a text")
        if len(found) > _MAX_MATCHED:
            raise BadInput("when", f"{_name(ref)} is longer than {_MAX_MATCHED:,} characters")
        if ways(wanted, len(found)) > _MOST_WAYS:
            raise BadInput("when", f"{wanted!r} could look for hours at {_name(ref)}: repeat less")
        return _pattern(wanted).fullmatch(found) is not None
    if test:
        if not (_is_number(found) and _is_number(wanted)) and not (
            isinstance(found, str) and isinstance(wanted, str)
        ):
            raise _wrong(ref, found, "a text" if isinstance(wanted, str) else "a number")
        return _ORDERED[test](found, wanted)
    if not isinstance(found, bool):
        raise _wrong(ref, found, "true or false")
    return found


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON: true is not 1, at any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _is_reference(wanted: Any) -> bool:
    return isinstance(wanted, dict) and "from" in wanted and wanted.keys() <= _PARTS


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong(ref: Ref, found: Any, wanted: str) -> BadInput:
    shown = "null" if found is None else f"a {type(found).__name__}"
    return BadInput("when", f"{_name(ref)} is {shown}; it must be {wanted}")


def _name(ref: Ref) -> str:
    return f"{ref.source}.{ref.path}" if ref.path else ref.source
