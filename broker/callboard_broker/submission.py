"""A chain around every `submit` of one client: add, change, refuse or repeat what is posted.

It is composed once, when the board is opened; a client without middleware pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from callboard_broker.errors import BadInput

if TYPE_CHECKING:
    from callboard_broker.handle import Handle
    from callboard_broker.options import TaskOptions

__all__ = ["Submission", "SubmitMiddleware", "SubmitNext", "check_chain", "composed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What was given to `Board.submit`, with the board's own tenant where none was named; another
    one is made by `dataclasses.replace`."""

    capability: str
    payload: Any
    tenant: str
    priority: int
    key: str | None
    timeout: float | None
    options: TaskOptions


class SubmitNext(Protocol):
    """What follows in the chain: the next middleware, or the posting itself."""

    def __call__(self, submission: Submission, /) -> Awaitable[Handle]:
        """Post it. Raises as `Board.submit` does."""
        ...


class SubmitMiddleware:
    """Around every `submit` of the board that it is given to; `run` and commands do without."""

    async def submit(self, submission: Submission, following: SubmitNext) -> Handle:
        """Post one task, or raise what the caller shall get."""
        return await following(submission)


def check_chain(chain: Sequence[SubmitMiddleware]) -> None:
    """Raise `BadInput` if something in it is no middleware."""
    for one in chain:
        if not isinstance(one, SubmitMiddleware):
            raise BadInput("middleware", f"{one!r:.80} is no SubmitMiddleware object")


def composed(chain: Sequence[SubmitMiddleware], last: SubmitNext) -> SubmitNext | None:
    """Return what posts through `chain`, the first outermost, to `last`; None if it is empty."""
    if not chain:
        return None
    following = last
    for middleware in reversed(chain):
        following = _link(middleware, following)
    return following


def _link(middleware: SubmitMiddleware, following: SubmitNext) -> SubmitNext:
    def link(submission: Submission, /) -> Awaitable[Handle]:
        return middleware.submit(submission, following)

    return link
