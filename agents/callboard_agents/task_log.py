"""`ctx.log`: the logger of one attempt. What it says goes to the host's own log and to the board.

Both have the same level. Nothing that goes wrong with a line is the handler's to hear.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard_agents.log_book import Page

__all__ = ["TaskLog"]

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class TaskLog(logging.LoggerAdapter[logging.Logger]):
    """A standard logger adapter. `extra` of a call is shown and kept as the line's fields.

    facts: what each record carries. page: of the attempt, if a host runs it.
    """

    def __init__(
        self, logger: logging.Logger, facts: Mapping[str, object], page: Page | None
    ) -> None:
        super().__init__(logger, facts)
        self._facts = dict(facts)
        self._page = page

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  logging's name
        """Whether anyone would hear a line of this level."""
        page = self._page
        return (page is not None and level >= page.level) or self.logger.isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Say it."""
        page = self._page
        heard = self.logger.isEnabledFor(level)
        wanted = page is not None and level >= page.level
        if not (heard or wanted):
            return
        fields = kwargs.pop("extra", None)
        if page is not None and wanted:
            text, wrong = _message(msg, args)
            error = _trace(kwargs.get("exc_info"))
            if not page.line(level, text, fields=fields, error=error):
                return  # a flood fills no file of the host either
            if wrong:
                msg, args = text, ()
        if heard:
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            self.logger.log(level, msg, *args, extra={**self._facts, "fields": fields}, **kwargs)

    def told(
        self, level: int, text: str, *, logger: str, fields: Mapping[str, Any] | None, error: str
    ) -> None:
        """Pass on what a child process has logged or printed."""
        page = self._page
        if page is not None and level >= page.level:
            within = page.line(level, text, logger=logger, fields=fields, error=error)
            if not within:
                return
        if self.logger.isEnabledFor(level):
            whole = f"{text}\n{error}" if error else text
            self.logger.log(level, "%s", whole, extra={**self._facts, "fields": fields})


def _message(msg: object, args: tuple[object, ...]) -> tuple[str, bool]:
    """The text of a line, as logging makes it; or what is wrong with it, and that it is wrong."""
    try:
        text = str(msg)
        if not args:
            return text, False
        named = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
        return text % named, False
    except Exception as error:  # noqa: BLE001  a handler's own text and objects
        wrong = f"a line that cannot be written: {type(error).__name__} ({type(msg).__name__})"
        return wrong, True


def _trace(given: object) -> str:
    """The text of an exception, however `exc_info` names it."""
    if not given:
        return ""
    error = given if isinstance(given, BaseException) else None
    if error is None:
        info: Any = given if isinstance(given, tuple) else sys.exc_info()
        error = info[1] if len(info) > 1 else None
    if not isinstance(error, BaseException):
        return ""
    try:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    except Exception as failed:  # noqa: BLE001  an exception whose text raises
        return f"{type(error).__name__} (its text cannot be written: {type(failed).__name__})"
