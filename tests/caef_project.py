"""A project for stories: a git repository that every user may read, with an environment for tests.

Its author is a program of the tests' own, whose answers a test writes; it notes each time that it
is asked, and can be held back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from tests.open_folders import open_folder
from tests.open_python import make_environment

__all__ = ["AUTHOR", "CaefProject", "caef_project", "edit", "story_text"]

AUTHOR = """
import json, os, pathlib, re, sys
folder = pathlib.Path(__file__).parent
prompt = sys.stdin.read()
story = re.search(r"^# (\\w+)", prompt, re.MULTILINE)[1]
number = 1
while True:
    try:
        (folder / f"{story}.{number}.asked").open("x").write(prompt)
        break
    except FileExistsError:
        number += 1
gate = folder / f"{story}.gate"
if gate.exists():
    gate.open().read()  # a pipe: until somebody opens it for writing
answers = json.loads((folder / f"{story}.answers").read_text())
print(json.dumps(answers[min(number, len(answers)) - 1]))
"""


def edit(file: str, old: str, new: str) -> dict[str, str]:
    return {"file": file, "original_snippet": old, "replacement_snippet": new}


def story_text(name: str, *files: str) -> str:
    listed = "\n".join(f"- {file}" for file in files)
    return f"# {name}\n\n## Acceptance Criteria\n1. It is done.\n\n## File List\n{listed}\n"


@dataclass(frozen=True, slots=True)
class CaefProject:
    """root: of the repository. author: the folder of what the author is told and notes."""

    root: Path
    author: Path
    python: Path

    @property
    def command(self) -> str:
        return f"{sys.executable} {self.author / 'author.py'}"

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        done = subprocess.run(
            ["git", *who, *words], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, files: Mapping[str, str], **settings: Any) -> None:
        """Write files, and `caef.yaml` with these settings, and commit them."""
        text = {"python": str(self.python), "linter": [], **settings}
        every = {".gitignore": ".callboard/\n", "caef.yaml": yaml.safe_dump(text), **files}
        for name, content in every.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        if not (self.root / ".git").exists():
            self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "begin")

    def answers(self, story: str, *answers: list[dict[str, str]]) -> None:
        """What the author says of a story, the first, second, ... time; then the last again."""
        (self.author / f"{story}.answers").write_text(json.dumps(answers))

    def hold(self, story: str) -> None:
        """Let the author wait before it answers, until `let_go`."""
        os.mkfifo(self.author / f"{story}.gate")

    def meet(self, story: str) -> IO[str]:
        """Return when the author has come to the gate."""
        return (self.author / f"{story}.gate").open("w")

    def let_go(self, story: str, gate: IO[str]) -> None:
        """It goes on, and nobody waits any more."""
        (self.author / f"{story}.gate").unlink()
        gate.close()

    def asked(self, story: str) -> list[str]:
        """The prompts that the author was given."""
        return [path.read_text() for path in sorted(self.author.glob(f"{story}.*.asked"))]


@contextmanager
def caef_project() -> Iterator[CaefProject]:
    """An empty one, removed at the end."""
    with open_folder() as folder:
        author = folder / "author"
        author.mkdir()
        (author / "author.py").write_text(AUTHOR)
        root = folder / "project"
        root.mkdir()
        yield CaefProject(root, author, make_environment(folder))
