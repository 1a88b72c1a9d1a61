"""The `log:` section: what every process says of itself, and what is kept of what handlers log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from callboard_config.section import Section

__all__ = ["LogSettings"]


class LogSettings(Section):
    """Lines of the board's own processes, and of handlers (`ctx.log`)."""

    format: Literal["auto", "console", "json"]
    """How a process writes its lines on stderr. `auto`: for a person on a terminal, else JSON,
    one object a line, because whatever reads a pipe is a program. `callboard up` writes its
    files under `.callboard/logs` for a person."""

    level: Literal["debug", "info", "warning", "error", "critical"]
    """The least that is said. What a handler logs below it is neither shown nor sent."""

    max_mb: Annotated[float, Field(ge=1, le=1_000_000)]
    """MiB of handlers' lines that the board keeps, and about as much again in the ledger's own
    database; the oldest go first."""

    max_days: Annotated[float, Field(gt=0, le=3650)]
    """Days for which they are kept at the most."""

    lines: Annotated[int, Field(ge=1, le=1_000_000)]
    """Lines that one attempt may log; of what is beyond only the number is told."""

    rate: Annotated[float, Field(gt=0, le=1e6)]
    """Lines a second that one attempt may log for long; five seconds' worth of them at once."""
