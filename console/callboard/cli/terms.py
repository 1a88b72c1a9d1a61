"""The options of `submit` that say on what terms a task is worked on, as the client has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from callboard.cli.reading import number, split_pair
from callboard_broker.errors import BadInput
from callboard_broker.options import TaskOptions

__all__ = ["Terms", "read_needs", "read_retry", "read_terms"]

_FIGURES = {"cpu": "cpu", "memory": "memory_mb"}
_WORDS = {"version": "version", "stay-with": "stay_with"}
_LISTS = {"specialization": "specialization", "avoid": "avoid"}
_NEEDS = ", ".join(sorted(["label", *_FIGURES, *_WORDS, *_LISTS]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """As they stand on the command line. queue, start, heartbeat, total: seconds."""

    retry: str | None = None
    delay: float | None = None
    cron: str | None = None
    zone: str = "UTC"
    overlap: bool = False
    queue: float | None = None
    start: float | None = None
    heartbeat: float | None = None
    total: float | None = None
    needs: Sequence[str] = ()
    budgets: Sequence[str] = ()
    units: Sequence[str] = ()


def read_terms(terms: Terms) -> TaskOptions:
    """The keywords of `Board.submit`. Raises `BadInput` that names the option."""
    options = TaskOptions()
    if terms.retry is not None:
        options["retry"] = read_retry(terms.retry)
    if terms.delay:
        options["delay"] = terms.delay
    if terms.cron is not None:
        options["cron"] = {
            "expression": terms.cron,
            "zone": terms.zone,
            "overlap": terms.overlap,
        }
    elif terms.overlap or terms.zone != "UTC":
        raise BadInput("zone" if terms.zone != "UTC" else "overlap", "says nothing without --cron")
    given = {name: getattr(terms, name) for name in ("queue", "start", "heartbeat", "total")}
    timeouts = {name: value for name, value in given.items() if value is not None}
    if timeouts:
        options["timeouts"] = timeouts
    if terms.needs:
        options["needs"] = read_needs(terms.needs)
    if terms.budgets:
        options["budgets"] = list(terms.budgets)
    if terms.units:
        options["units"] = _read_units(terms.units)
    return options


def read_retry(text: str) -> dict[str, Any]:
    """`3`, or a JSON object of the fields of `Retry`."""
    try:
        value = msgspec.json.decode(text.encode(errors="surrogateescape"))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("retry", f"{text!r} is neither a number nor JSON") from error
    if isinstance(value, int) and not isinstance(value, bool):
        return {"attempts": value}
    if not isinstance(value, dict):
        raise BadInput("retry", f"{text!r} is neither a number of attempts nor an object")
    return value


def read_needs(texts: Sequence[str]) -> dict[str, Any]:
    """`label=gpu:a100`, `cpu=2`, `version=>=1.2,<2`, ...: the fields of `Needs`."""
    needs: dict[str, Any] = {}
    for text in texts:
        name, value = split_pair(text, "need", "WHAT=VALUE, such as cpu=2 or label=gpu:a100")
        if name == "label":
            key, colon, label = value.partition(":")
            if not (key and colon and label):
                raise BadInput("need", f"{text!r} is not label=KEY:VALUE")
            needs.setdefault("labels", {})[key] = label
        elif name in _FIGURES:
            needs[_FIGURES[name]] = number(value, f"need {name}")
        elif name in _WORDS:
            needs[_WORDS[name]] = value
        elif name in _LISTS:
            needs.setdefault(_LISTS[name], []).append(value)
        else:
            raise BadInput("need", f"{name!r} is none of {_NEEDS}")
    return needs


def _read_units(texts: Sequence[str]) -> dict[str, float]:
    units: dict[str, float] = {}
    for text in texts:
        name, value = split_pair(text, "unit", "UNIT=N, such as tokens=2000")
        units[name] = number(value, f"unit {name}")
    return units
