"""What is recorded of an error: its class, its message, and where it was raised, all bounded.

An error says by itself whether another attempt could help: one with an attribute `retry` that is
False is final, and an attribute `retry_after`, in seconds, is recorded.
"""

from __future__ import annotations

import math
import traceback

import msgspec

from callboard_broker.errors import BadInput, CallboardError
from callboard_broker.wire import Failure

__all__ = [
    "GiveUp",
    "bad_result",
    "bounded",
    "cancelled",
    "crashed",
    "failure_of",
    "heartbeat_missed",
    "timed_out",
    "with_peak",
]

_MAX_MESSAGE = 2_000
_MAX_TRACE = 4_000
_FRAMES = 12
_MAX_RETRY_AFTER = 30 * 86_400.0


class GiveUp(CallboardError, RuntimeError):
    """Raised by a handler: the task has failed, and no further attempt would change that."""

    retry = False


def failure_of(error: BaseException) -> Failure:
    """Return the failure that `error`, raised by a handler or by reading its payload, makes."""
    if isinstance(error, BadInput):
        return _of_field("BadInput", error)
    return Failure(
        type=_clean(type(error).__name__, 100),
        message=_text(error),
        trace=_trace(error),
        final=_said(error, "retry") is False,
        retry_after=_seconds(_said(error, "retry_after")),
    )


def bad_result(error: BadInput) -> Failure:
    """Return the failure of a handler whose result JSON cannot hold, or that is too large."""
    return _of_field("BadResult", error)


def bounded(failure: Failure) -> Failure:
    """Return what a child process says of its failure, within the bounds of any other."""
    return Failure(
        type=_clean(failure.type, 100) or "Crashed",
        message=_clean(failure.message, _MAX_MESSAGE),
        field=None if failure.field is None else _clean(failure.field, 300),
        trace=None if failure.trace is None else _clean(failure.trace, _MAX_TRACE, tail=True),
        final=failure.final,
        retry_after=_seconds(failure.retry_after),
    )


def with_peak(failure: Failure, memory_mb: float) -> Failure:
    """Return the failure of a child process with the most memory that was measured, where it knew
    no more than what it was granted. memory_mb: beyond what it began with; 0: not known."""
    granted = failure.message.endswith("that are granted")
    if failure.type != "MemoryExceeded" or not granted or not memory_mb:
        return failure
    said = f"{failure.message[: _MAX_MESSAGE - 50]}; its peak was {memory_mb:.1f} MiB"
    return msgspec.structs.replace(failure, message=said)


def crashed(why: str) -> Failure:
    """Return the failure of a child process that ended without an answer to believe."""
    return Failure(type="Crashed", message=_clean(why, _MAX_MESSAGE))


def timed_out(seconds: float, granted: float, *, begun: bool = True) -> Failure:
    """Return the failure of a handler that ran for longer than its timeout. seconds: until it was
    over, or was given up. begun: False: it waited for its payload or its process all the time."""
    what = "it ran" if begun else "it had not begun after"
    return Failure("TimedOut", f"{what} {seconds:.2f} s, of {granted:g} that are granted")


def cancelled(why: str) -> Failure:
    """Return the failure of an attempt that was stopped on request. why: as the request says."""
    return Failure(type="Cancelled", message=_clean(why, _MAX_MESSAGE) or "cancelled", final=True)


def heartbeat_missed(seconds: float, *, command: bool = False) -> Failure:
    """Return the failure of a handler, or command, that gave no sign of life for its heartbeat
    timeout."""
    signs = "no ctx.heartbeat(), ctx.progress(), ctx.output() or ctx.checkpoint()"
    if command:
        signs = "no line on standard error"
    return Failure(
        type="HeartbeatMissed", message=f"for more than {seconds:g} s no sign of life: {signs}"
    )


def _of_field(kind: str, error: BadInput) -> Failure:
    """The field stands beside the message and not in it: whoever shows a failure names both."""
    return Failure(
        type=kind,
        message=_clean(str(error.reason), _MAX_MESSAGE),
        field=_clean(str(error.field), 300),
    )


def _said(error: BaseException, name: str) -> object:
    try:
        return getattr(error, name, None)
    except Exception:  # noqa: BLE001  an error's own property may do anything; it then says nothing
        return None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return min(max(float(value), 0.0), _MAX_RETRY_AFTER)


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
