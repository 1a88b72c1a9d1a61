"""A folder that every user may enter, as the users that children get: pytest's own are closed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PYTHON", "open_folder", "write_script"]

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
"""One that those users may run: an environment may lie in somebody's home."""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A fresh one, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="open-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def write_script(folder: Path, name: str, text: str) -> Path:
    """Write a program that everyone may run."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path
