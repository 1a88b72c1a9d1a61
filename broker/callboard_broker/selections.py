"""What a workflow's builder hands out: values that will exist when it runs, and questions to them.

flow.step("ship", "orders.ship", when=stock["left"].above(0) & ~paid["late"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Condition", "Selection", "plain"]


class Condition:
    """A question that the router asks when a step is to begin. `&`, `|` and `~` combine them."""

    __slots__ = ("_said",)

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said

    def __and__(self, other: Condition | Selection) -> Condition:
        return Condition({"all": [self._said, other.plain()]})

    def __or__(self, other: Condition | Selection) -> Condition:
        return Condition({"any": [self._said, other.plain()]})

    def __invert__(self) -> Condition:
        return Condition({"not": self._said})

    def __bool__(self) -> bool:
        raise TypeError("a condition is not known yet: combine conditions with &, | and ~")

    def __repr__(self) -> str:
        return f"<Condition {self._said}>"

    def plain(self) -> dict[str, Any]:
        """The condition as it stands in a step; see `conditions`."""
        return self._said


class Selection:
    """A value that will exist when the workflow runs; `[...]` selects inside it.

    As a condition it must be true or false; else ask it: `plan["files"].exists()`.
    """

    __slots__ = ("path", "source")

    def __init__(self, source: str, path: str = "") -> None:
        self.source = source
        self.path = path

    def __getitem__(self, part: str | int) -> Selection:
        return Selection(self.source, f"{self.path}.{part}" if self.path else str(part))

    def __repr__(self) -> str:
        return f"<{self.source}{'.' if self.path else ''}{self.path}>"

    def __and__(self, other: Condition | Selection) -> Condition:
        return Condition(dict(self.plain())) & other

    def __or__(self, other: Condition | Selection) -> Condition:
        return Condition(dict(self.plain())) | other

    def __invert__(self) -> Condition:
        return ~Condition(dict(self.plain()))

    def equals(self, value: Any) -> Condition:
        """It is the same JSON; `value` may be a selection, too."""
        return self._ask("equals", value)

    def not_equals(self, value: Any) -> Condition:
        return self._ask("not_equals", value)

    def above(self, value: Any) -> Condition:
        """A number over this one, or a text that comes after this one."""
        return self._ask("above", value)

    def below(self, value: Any) -> Condition:
        return self._ask("below", value)

    def at_least(self, value: Any) -> Condition:
        return self._ask("at_least", value)

    def at_most(self, value: Any) -> Condition:
        return self._ask("at_most", value)

    def is_in(self, values: Sequence[Any] | Selection) -> Condition:
        """It equals one of these."""
        return self._ask("in", values)

    def exists(self) -> Condition:
        """It is there and not null."""
        return self._ask("exists", True)

    def matches(self, pattern: str) -> Condition:
        """It is a text, and the regular expression matches all of it."""
        return self._ask("matches", pattern)

    def plain(self) -> dict[str, str]:
        """The reference as it stands in a payload."""
        return {"from": self.source, "path": self.path} if self.path else {"from": self.source}

    def _ask(self, test: str, value: Any) -> Condition:
        return Condition({"value": self.plain(), test: plain(value)})


def plain(value: Any) -> Any:
    """Data in which selections stand, as JSON data with references."""
    if isinstance(value, Selection | Condition):
        return value.plain()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
