"""What the reviewing agents say to each other: plain records that cross the wire as JSON.

A specialist reads one file and answers with one `FileReview`; nothing in it points back into the
file, so a review can be stored, replayed and joined on another host.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["SEVERITIES", "FileReview", "Finding", "Hotspot", "Import", "Severity"]

Severity = Literal["high", "medium", "low", "info"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low", "info")


class Finding(msgspec.Struct, frozen=True):
    """One thing a reader of `file` should look at, at `line` (counted from 1)."""

    rule: str
    severity: Severity
    file: str
    line: int
    message: str


class Hotspot(msgspec.Struct, frozen=True):
    """One function's measures.

    complexity: McCabe's number of independent paths. cognitive: how hard it is to follow, where
    nested branches weigh more. nesting: the deepest block. lines: from `def` to its last line.
    """

    function: str
    file: str
    line: int
    complexity: int
    cognitive: int
    nesting: int
    lines: int


class Import(msgspec.Struct, frozen=True):
    """One import that runs when the module is imported: `from <level dots><module> import <name>`.

    `name` is empty for a plain `import module`.
    """

    module: str
    name: str
    level: int
    line: int


class FileReview(msgspec.Struct, frozen=True, kw_only=True):
    """What one specialist has to say about one file.

    facts: counts and measures by name. hotspots: filled by the structure specialist only.
    imports: filled by the imports specialist only, for the cycles that one file cannot show.
    process: who did the work ("host pid"); the agent fills it in.
    """

    file: str
    specialist: str
    findings: list[Finding]
    facts: dict[str, int | float]
    hotspots: list[Hotspot] = msgspec.field(default_factory=list)
    imports: list[Import] = msgspec.field(default_factory=list)
    process: str = ""
