"""How a graph that runs as an agent asks a person: its task ends with the questions as its result.

Whoever posted the task gets the answers and posts them as another task of the same capability,
which goes on in the same thread. A thread names its tenant: tasks of others do not get into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callboard_broker.errors import BadInput

__all__ = ["Answers", "Asked", "Question", "answer", "asked_in", "read_answers"]


class Question(msgspec.Struct, frozen=True):
    """What is asked. id: LangGraph's, of the interrupt."""

    id: str
    value: Any


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result of a task that waits for answers."""

    questions: list[Question] = msgspec.field(name="__interrupt__")
    thread: str = ""


class Answers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload of a task that goes on. answers: by the question's id."""

    answers: dict[str, Any] = msgspec.field(name="__resume__")
    thread: str = ""


def asked_in(result: Any) -> Asked | None:
    """The questions that a result is, or None."""
    if not isinstance(result, Mapping) or "__interrupt__" not in result:
        return None
    try:
        return msgspec.convert(result, Asked)
    except msgspec.ValidationError as error:
        raise BadInput("result", f"looks like questions, and is not: {error}") from error


def answer(asked: Asked, answers: dict[str, Any]) -> Any:
    """The payload that carries answers back."""
    return msgspec.to_builtins(Answers(answers, asked.thread))


def read_answers(payload: Any) -> Answers | None:
    """The answers that a payload is, or None. Raises `BadInput`."""
    if not isinstance(payload, Mapping) or "__resume__" not in payload:
        return None
    try:
        return msgspec.convert(payload, Answers)
    except msgspec.ValidationError as error:
        raise BadInput("__resume__", str(error)) from error
