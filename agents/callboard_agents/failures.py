"""What is recorded of an error: its class, its message, and where it was raised, all bounded."""

from __future__ import annotations

import traceback

from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure

__all__ = ["bad_result", "failure_of", "timed_out"]

_MAX_MESSAGE = 2_000
_MAX_TRACE = 4_000
_FRAMES = 12


def failure_of(error: BaseException) -> Failure:
    """Return the failure that `error`, raised by a handler or by reading its payload, makes."""
    if isinstance(error, BadInput):
        return Failure(type="BadInput", message=_text(error), field=_clean(error.field, 300))
    return Failure(
        type=_clean(type(error).__name__, 100), message=_text(error), trace=_trace(error)
    )


def bad_result(error: BadInput) -> Failure:
    """Return the failure of a handler whose result JSON cannot hold, or that is too large."""
    return Failure(type="BadResult", message=_text(error), field=_clean(error.field, 300))


def timed_out(seconds: float) -> Failure:
    """Return the failure of a handler that ran for longer than its timeout."""
    return Failure(type="TimedOut", message=f"the handler ran for more than {seconds:g} s")


def _text(error: BaseException) -> str:
    try:
        return _clean(str(error), _MAX_MESSAGE)
    except Exception as broken:  # noqa: BLE001  an error's own __str__ may do anything
        return f"(its message cannot be shown: {type(broken).__name__})"


def _trace(error: BaseException) -> str | None:
    """The innermost frames, without the host's own, which come first."""
    where = error.__traceback__
    while where is not None and where.tb_frame.f_globals.get("__package__") == __package__:
        where = where.tb_next
    if where is None:
        return None
    return _clean("".join(traceback.format_tb(where, limit=-_FRAMES)), _MAX_TRACE, tail=True)


def _clean(text: str, limit: int, *, tail: bool = False) -> str:
    """Bounded, and without the lone surrogates that UTF-8 refuses."""
    cut = text[-limit:] if tail else text[:limit]
    return cut.encode("utf-8", "backslashreplace").decode()
