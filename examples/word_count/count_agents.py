"""Agents of word_count.yaml: list the files, count the words of each, put the counts together."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TypedDict

from callboard import BadInput, agent


class Files(TypedDict):
    """What `count.list` is asked."""

    root: str
    pattern: str


class Count(TypedDict):
    """What `count.file` found."""

    path: str
    words: dict[str, int]


class Counts(TypedDict):
    """What `count.sum` is given: the results of a fan-out, in the order of the files."""

    counts: list[Count]
    most: int


@agent("count.list")
def list_files(wanted: Files) -> dict[str, list[str]]:
    """A plain function runs in one of its host's threads."""
    root = Path(wanted["root"])
    if not root.is_dir():
        raise BadInput("root", f"{root} is no folder")
    return {"files": sorted(str(path) for path in root.rglob(wanted["pattern"]))}


@agent("count.file", timeout=30)
def count_file(path: str) -> Count:
    """Runs once per file, in parallel, on whichever host is free."""
    text = Path(path).read_text(encoding="utf-8", errors="replace").lower()
    return {"path": path, "words": dict(Counter(re.findall(r"[a-z]{4,}", text)))}


@agent("count.sum")
def add_up(found: Counts) -> dict[str, object]:
    """Starts when the last count is there."""
    total = Counter[str]()
    for count in found["counts"]:
        total.update(count["words"])
    return {"files": len(found["counts"]), "words": dict(total.most_common(found["most"]))}
