"""`main`: runs the command, and turns every error a user can cause into one line and a code.

0 done · 1 the task or workflow failed, or the audit log does not verify · 2 bad usage or input, or
the router refuses · 3 nothing answers · 130 interrupted. CALLBOARD_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

import msgspec
import typer

from callboard.cli.commands import app
from callboard.cli.screen import visible
from callboard_broker.connection import ApiError, NoResponder
from callboard_broker.errors import (
    AuditBroken,
    BadInput,
    BoardUnreachable,
    CallboardError,
    CommandRefused,
    CommandUnanswered,
    JournalMissing,
    SchemaMissing,
    ServerFailed,
    StreamMissing,
    TargetAway,
    TargetRefused,
    TaskError,
    UnknownTask,
)
from callboard_config import SettingsError

__all__ = ["main"]

FAILED, BAD_INPUT, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

# typer brings its own copy of click or uses the installed one: these are the classes it raises.
_UsageError = typer.BadParameter.__mro__[1]
_ClickException = typer.BadParameter.__mro__[2]

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (BoardUnreachable, UNREACHABLE),
    (NoResponder, UNREACHABLE),
    (StreamMissing, UNREACHABLE),
    (TargetAway, UNREACHABLE),
    (BadInput, BAD_INPUT),
    (UnknownTask, BAD_INPUT),
    (CommandRefused, BAD_INPUT),
    (CommandUnanswered, UNREACHABLE),
    (SettingsError, BAD_INPUT),
    (ServerFailed, BAD_INPUT),
    (TargetRefused, BAD_INPUT),
    (SchemaMissing, BAD_INPUT),
    (JournalMissing, BAD_INPUT),
    (msgspec.DecodeError, BAD_INPUT),
    (TaskError, FAILED),
    (AuditBroken, FAILED),
    (ApiError, FAILED),
    (CallboardError, FAILED),
    (TimeoutError, UNREACHABLE),
    (OSError, BAD_INPUT),
)
_HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (CommandUnanswered, "start a router with `callboard up` or `callboard router`"),
    (NoResponder, "start what is missing with `callboard up`, or see `callboard status`"),
    (SettingsError, "`callboard config show` lists every setting and where it comes from"),
    (UnknownTask, "tasks belong to tenants: --tenant NAME, or --tenant all to look in each"),
    (TimeoutError, "the server answers, a component does not: see `callboard status`"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of `arguments` (else of the process) and exit with its code."""
    sys.exit(_main(list(sys.argv[1:] if arguments is None else arguments)))


def _main(arguments: list[str]) -> int:
    logging.getLogger().addHandler(logging.NullHandler())  # a command says itself what is wrong
    try:
        code = app(arguments, prog_name="callboard", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away (`| head`): not an error, and not to be said again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  what nobody can cause is raised again
        return _complain(error)
    return code if isinstance(code, int) else 0


def _complain(error: BaseException) -> int:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if os.environ.get("CALLBOARD_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, _ClickException):
        return _misused(error)
    for kind, code in _CODES:
        if isinstance(error, kind):
            _say(_told(error), error)
            return code
    raise error


def _told(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _misused(error: BaseException) -> int:
    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    if context is not None and message == context.get_help():  # no command was named
        typer.echo(message, err=True)
        return BAD_INPUT
    _say(message, error)
    if context is not None:
        print(f"try: {context.command_path} --help", file=sys.stderr)  # noqa: T201  for a person
    return BAD_INPUT


def _say(message: str, error: BaseException) -> None:
    hints = [hint for kind, hint in _HINTS if isinstance(error, kind)]
    lines = [f"callboard: {message}", *(f"hint: {hint}" for hint in hints[:1])]
    for line in "\n".join(lines).splitlines():
        print(visible(line), file=sys.stderr)  # noqa: T201  what a person reads
