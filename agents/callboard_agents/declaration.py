"""What an agent declares of itself, checked when its module is imported.

Whatever is announced in a beat keeps the bounds of `wire.Offer` here: an offer that the router
could not read would silence the whole host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from callboard_agents.limits import Limits
from callboard_broker.errors import BadInput
from callboard_broker.subjects import check_capability

if TYPE_CHECKING:
    from callboard_agents.command import Command

__all__ = ["Declaration", "Isolation"]

Isolation = Literal["inline", "thread", "process"]

_MAX_TIMEOUT = 30 * 86_400.0
_MAX_SLOTS = 100_000
_MAX_WORD = 128
_MAX_WORDS = 32
_MAX_VERSION = 64


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """What the decorator was given. Raises `BadInput` that names the field; see `agent`.

    command: what is run instead of a handler.
    """

    capability: str
    isolation: Isolation | None = None
    slots: int | None = None
    timeout: float | None = None
    memory_mb: float | None = None
    cpu: float | None = None
    name: str | None = None
    version: str = ""
    specialization: Sequence[str] = ()
    labels: Mapping[str, str] = {}
    limits: Limits = Limits()
    command: Command | None = None

    def __post_init__(self) -> None:
        check_capability(self.capability)
        if self.isolation not in (None, *get_args(Isolation)):
            raise BadInput("isolation", f"{self.isolation!r} is not inline, thread or process")
        if not isinstance(self.limits, Limits):
            raise BadInput("limits", f"{self.limits!r:.80} is no Limits: Limits(processes=4)")
        if self.command is not None and (self.limits.tasks_per_child or 1) > 1:
            raise BadInput("limits.tasks_per_child", "a command is started for each attempt anew")
        if self.slots is not None:
            _check_number("slots", self.slots, _MAX_SLOTS)
            if not isinstance(self.slots, int):
                raise BadInput("slots", f"{self.slots!r} is not a whole number")
        if self.timeout is not None:
            _check_number("timeout", self.timeout, _MAX_TIMEOUT)
        if self.memory_mb is not None:
            _check_number("memory_mb", self.memory_mb, math.inf)
        if self.cpu is not None:
            _check_number("cpu", self.cpu, math.inf)
        if self.name is not None:
            _check_word("name", self.name)
        if self.version != "":
            _check_word("version", self.version, _MAX_VERSION)
        self._check_words()

    def _check_words(self) -> None:
        if isinstance(self.specialization, str) or not isinstance(self.specialization, Sequence):
            raise BadInput("specialization", "a list of words, such as ['python', 'security']")
        if not isinstance(self.labels, Mapping):
            raise BadInput("labels", "a dict of words, such as {'region': 'eu'}")
        for field, words in (("specialization", self.specialization), ("labels", self.labels)):
            if len(words) > _MAX_WORDS:
                raise BadInput(field, f"{len(words)} entries; at most {_MAX_WORDS}")
        for word in self.specialization:
            _check_word("specialization", word)
        for label, value in self.labels.items():
            _check_word("labels", label)
            _check_word(f"labels.{label}", value)


def _check_word(field: str, value: object, most: int = _MAX_WORD) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise BadInput(field, f"{value!r:.80} is not a text of 1 to {most} characters")
    if not value.isprintable():
        raise BadInput(field, f"{value!r:.80} holds characters that cannot be shown")


def _check_number(field: str, value: object, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        limit = f" and at most {most:g}" if math.isfinite(most) else ""
        raise BadInput(field, f"{value!r} is not a number above 0{limit}")
