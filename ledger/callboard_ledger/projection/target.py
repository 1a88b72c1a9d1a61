"""What a projector needs of a database: a call of one of the functions that its migrations made.

Everything that must be true of the tables is done by those functions, in one transaction a call;
so a way to a database (a driver, a client of a hosted one) is no more than `call`.
"""

from __future__ import annotations

from typing import Any, Protocol

from callboard_broker.errors import TargetRefused

__all__ = ["Target", "lacks_schema", "refuses_rows"]

_MISSING = frozenset({"42P01", "42883", "3F000", "PGRST202", "PGRST205"})
_DENIED = frozenset({"42501", "28000", "28P01", "3D000"})
_OF_ROWS = ("22", "23", "42", "54", "P0001")  # the last one: a trigger's own words


class Target(Protocol):
    """A database. Its name is shown, so it holds no secret."""

    @property
    def name(self) -> str: ...

    async def call(self, function: str, document: str) -> Any:
        """Call a function with one JSON document; return its answer, decoded.

        Raises `TargetAway`, `TargetRefused`.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection. Safe to repeat."""
        ...


def refuses_rows(error: TargetRefused) -> bool:
    """Whether it may be about a single row that will never be taken: classes 22, 23, 42 and 54,
    or a trigger."""
    state = error.sqlstate
    return state not in _MISSING and state not in _DENIED and state.startswith(_OF_ROWS)


def lacks_schema(error: TargetRefused) -> bool:
    """Whether a table or a function is not there."""
    return error.sqlstate in _MISSING
