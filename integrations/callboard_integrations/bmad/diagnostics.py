"""What is wrong with a file, and where: collected while it is read, never raised.

An error means that the file gives nothing; a warning, that something of it was left out or mended;
a note, that something is worth knowing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Diagnostic", "Findings", "Severity"]

Severity = Literal["error", "warning", "note"]

_MOST = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """path: as it was found, relative to the project. line: the first that is meant, from 1."""

    path: str
    line: int | None
    severity: Severity
    code: str
    message: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.severity}: {self.message} [{self.code}]"


@dataclass(slots=True)
class Findings:
    """The diagnostics of one file; at most 50, so that a broken one does not drown the others."""

    path: str
    found: list[Diagnostic] = field(default_factory=list)

    def error(self, code: str, message: str, line: int | None = None) -> None:
        self._add("error", code, message, line)

    def warning(self, code: str, message: str, line: int | None = None) -> None:
        self._add("warning", code, message, line)

    def note(self, code: str, message: str, line: int | None = None) -> None:
        self._add("note", code, message, line)

    def _add(self, severity: Severity, code: str, message: str, line: int | None) -> None:
        if len(self.found) < _MOST:
            self.found.append(
                Diagnostic(path=self.path, line=line, severity=severity, code=code, message=message)
            )
