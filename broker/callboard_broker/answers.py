"""Requests and their answers: one inbox, numbered, and what an answer may say instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from callboard_broker.errors import CallboardError, StreamMissing
from callboard_broker.headers import status

__all__ = ["Answers", "ApiError", "NoResponder", "Reply", "read_api_answer"]

_STREAM_NOT_FOUND = 10059
_NO_RESPONDERS = 503


class NoResponder(CallboardError, LookupError):
    """Nobody answers requests on `.subject` at the moment."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"nobody answers on {subject}; is the component that does it running?")
        self.subject = subject


class ApiError(CallboardError, RuntimeError):
    """JetStream refused a call. `.code`: as in HTTP; `.err_code`: JetStream's own number."""

    def __init__(self, verb: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{verb}: {description} ({err_code})")
        self.verb = verb
        self.code = code
        self.err_code = err_code
        self.description = description


class Reply(NamedTuple):
    """An answer to a request. headers: the raw block, or b""."""

    data: bytes
    headers: bytes


class Answers:
    """Who waits for which answer. inbox: each waiter has a subject of its own below it."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self._number = 0
        self._waiting: dict[str, tuple[str, asyncio.Future[Reply]]] = {}

    def expect(self, subject: str) -> tuple[str, asyncio.Future[Reply]]:
        """Return where the answer to a request on `subject` shall go, and what will have it.

        The future raises `NoResponder` if nobody listens there.
        """
        self._number += 1
        inbox = f"{self._inbox}.{self._number}"
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[inbox] = (subject, answer)
        return inbox, answer

    def forget(self, inbox: str) -> None:
        """Nobody waits for this one any more."""
        self._waiting.pop(inbox, None)

    def arrived(self, inbox: str, _reply: str, headers: bytes, data: bytes) -> None:
        """The sink of `<inbox>.*`."""
        subject, answer = self._waiting.pop(inbox, ("", None))
        if answer is None or answer.done():
            return
        line = status(headers) if headers and not data else None
        if line is not None and line[0] == _NO_RESPONDERS:
            answer.set_exception(NoResponder(subject))
        else:
            answer.set_result(Reply(data, headers))

    def fail(self, error: Callable[[], Exception]) -> None:
        """No answer will come any more: everyone who waits gets an `error()` of their own."""
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_exception(error())


_decode = msgspec.json.Decoder().decode


def read_api_answer(verb: str, data: bytes) -> dict[str, Any]:
    """Decode the answer of `$JS.API.<verb>`. Raises `StreamMissing`, `ApiError`."""
    answer: dict[str, Any] = _decode(data)
    error = answer.get("error")
    if error is None:
        return answer
    if error.get("err_code") == _STREAM_NOT_FOUND:
        words = verb.split(".")
        raise StreamMissing(words[2] if len(words) > 2 else "")
    raise ApiError(
        verb, error.get("code", 0), error.get("err_code", 0), error.get("description", "")
    )
