"""Who reviews a file: every specialist by name, all with one signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from callboard.demo import defects, documentation, imports, secrets, security, structure
from callboard.demo.findings import FileReview

__all__ = ["SPECIALISTS", "Specialist"]

Specialist = Callable[[str, str], FileReview]
"""`review(source, file)`: the text of one file and its relative path to a review; never raises."""

SPECIALISTS: Mapping[str, Specialist] = MappingProxyType(
    {
        "defects": defects.review,
        "documentation": documentation.review,
        "imports": imports.review,
        "secrets": secrets.review,
        "security": security.review,
        "structure": structure.review,
    }
)
