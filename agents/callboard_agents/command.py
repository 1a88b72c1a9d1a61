"""A command line as an agent has it: found and checked when it is declared, run in a child process.

The program is looked up then and never again, so a missing one is refused before any task waits for
it. A word that begins with `./` or `../` names a file or folder beside whatever declares the
command; it becomes absolute, and the command may read it. Nothing of the host's environment is
passed on.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from callboard_broker.errors import BadInput

__all__ = ["Command", "Output", "find_command"]

Output = Literal["json", "text"]

_MAX_WORDS = 256
_MAX_WORD = 32 * 1024
_MAX_VARIABLES = 64
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS = "CALLBOARD_"
_MAX_SHEBANG = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is executed. words: the program's path, then its arguments. env: its environment, beside
    PATH, LANG, HOME, TMPDIR and `CALLBOARD_...`. read: paths that it needs itself.

    output: how its standard output is read: `json`, or `text` as one string.
    """

    words: tuple[str, ...]
    output: Output = "json"
    env: dict[str, str]
    read: tuple[str, ...] = ()

    def __call__(self, payload: object) -> object:  # noqa: ARG002  an agent's interface
        """Say that it runs in a child process of a host, and nowhere else."""
        raise RuntimeError(
            f"{self.words[0]} is a command: only a host runs it, in a child process of its own; "
            "post a task to its agent"
        )


def find_command(
    words: Sequence[str], *, folder: Path, output: Output = "json", env: Mapping[str, str]
) -> Command:
    """Return the command of these words. folder: where `./` is. Raises `BadInput`: the field."""
    if isinstance(words, str) or not isinstance(words, Sequence) or not words:
        raise BadInput("command", "a list of words, such as ['pytest', '-q']")
    if len(words) > _MAX_WORDS:
        raise BadInput("command", f"{len(words)} words; at most {_MAX_WORDS}")
    for word in words:
        if not isinstance(word, str) or len(word) > _MAX_WORD or "\0" in word:
            raise BadInput(
                "command", f"{word!r:.80} is not a text of at most {_MAX_WORD} characters"
            )
    if output not in get_args(Output):
        raise BadInput("output", f"{output!r:.80} is neither json nor text")
    program = _program(words[0], folder)
    needed = [program, *_interpreter(program)]
    arguments = []
    for word in words[1:]:
        found = word
        if word.startswith(("./", "../")):
            found = _beside(word, folder)
            needed.append(found)
        elif word.startswith("/") and os.path.isfile(word):  # noqa: PTH113  a word, not a path
            needed.append(word)
        arguments.append(found)
    return Command(
        words=(program, *arguments), output=output, env=_checked(env), read=tuple(needed)
    )


def _program(word: str, folder: Path) -> str:
    if "/" in word:
        found = word if word.startswith("/") else _beside(word, folder)
        if not os.path.isfile(found):  # noqa: PTH113  a word, not a path
            raise BadInput("command", f"there is no program {found}")
        if not os.access(found, os.X_OK):
            raise BadInput("command", f"{found} cannot be executed: chmod +x {found}")
        return found
    here = os.path.dirname(sys.executable)  # noqa: PTH120  not resolved: of the environment
    path = os.environ.get("PATH", os.defpath) + os.pathsep + here
    program = shutil.which(word, path=path)
    if program is None:
        raise BadInput(
            "command",
            f"there is no program {word!r} on PATH: install it, or name a path, such as ./{word}",
        )
    return os.path.abspath(program)  # noqa: PTH100  a link stays one: python finds its venv by it


def _beside(word: str, folder: Path) -> str:
    found = os.path.abspath(folder / word)  # noqa: PTH100  see above
    if not os.path.exists(found):  # noqa: PTH110  a word, not a path
        raise BadInput("command", f"{word}: there is no {found}")
    return found


def _interpreter(program: str) -> list[str]:
    """What the kernel will start to run a script."""
    with open(program, "rb") as file:  # noqa: PTH123  a word, not a path
        line = file.read(_MAX_SHEBANG).partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return []
    return [os.fsdecode(word) for word in line[2:].split()[:1]]


def _checked(env: Mapping[str, str]) -> dict[str, str]:
    """Values are never shown: one may be a secret."""
    if not isinstance(env, Mapping):
        raise BadInput("env", "a mapping of names to texts, such as {'MODE': 'fast'}")
    if len(env) > _MAX_VARIABLES:
        raise BadInput("env", f"{len(env)} variables; at most {_MAX_VARIABLES}")
    for name, value in env.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise BadInput("env", f"{name!r:.80} is not the name of a variable")
        if name.startswith(_OURS):
            raise BadInput(f"env.{name}", f"{_OURS}... are set by the host")
        if not isinstance(value, str) or len(value) > _MAX_WORD or "\0" in value:
            raise BadInput(f"env.{name}", f"is not a text of at most {_MAX_WORD} characters")
    return dict(env)
