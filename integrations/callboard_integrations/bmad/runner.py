"""Who does the work: whatever a user names turns a system prompt and a prompt into an answer.

A runner keeps no state between two requests: every task has a fresh context. What it costs is
counted in tokens, where it says so.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from callboard_broker.errors import BadInput, CallboardError

__all__ = ["Answer", "ModelRefused", "Request", "Runner", "RunnerFailed", "named_object"]


class RunnerFailed(CallboardError, RuntimeError):
    """The runner gave no answer; another attempt may get one."""


class ModelRefused(RunnerFailed):
    """The runner will not answer this, however often it is asked."""

    retry = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """system: the persona's text, unmodified. folder: where a command line works, if there is one.

    tokens: the answer may have at most.
    """

    system: str
    prompt: str
    folder: Path | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """tokens: of the request and the answer together; None if the runner does not say."""

    text: str
    tokens: int | None = None


class Runner(Protocol):
    """`name` is for people. `run` raises `RunnerFailed`."""

    name: str

    async def run(self, request: Request) -> Answer: ...


def named_object(place: str, field: str) -> Any:
    """The object of `package.module:name`. Raises `BadInput`."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise BadInput(field, f"{place!r} is not package.module:name")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise BadInput(field, f"{module} cannot be imported: {error}") from error
    except AttributeError as error:
        raise BadInput(field, f"{module} has no {name}") from error
    return found
