"""Where a zygote begins, before any module can ask to be called at forks.

The standard library puts its locks and its list of threads in order in every forked process, which
touches some 150 pages: a third of what a child costs. A keeper has one thread and holds no lock, so
its children go without; whatever another module has asked for is done in each of them. Where no
child may open a connection, TLS is not loaded either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

_ORDERLY = frozenset({"threading", "logging", "concurrent.futures.thread"})
_register = os.register_at_fork
_alone = False


def alone() -> None:
    """From here on this process has one thread, and so has every child of it."""
    global _alone  # noqa: PLW0603  of this process
    _alone = True


def _register_unless_alone(**handlers: Callable[[], object]) -> None:
    """Who asks is looked up by the caller: some handlers are a lock's own methods, of no module."""
    if sys._getframe(1).f_globals.get("__name__") in _ORDERLY:  # noqa: SLF001  there is no other way
        handlers = {when: _unless_alone(handler) for when, handler in handlers.items()}
    _register(**handlers)


def _unless_alone(handler: Callable[[], object]) -> Callable[[], object]:
    def handle() -> None:
        if not _alone:
            handler()

    return handle


def _enter(descriptor: str, network: str) -> int:
    setattr(os, "register_at_fork", _register_unless_alone)  # noqa: B010  typed as another function
    modules: dict[str, Any] = sys.modules
    if network == "no":
        modules["ssl"] = None  # asyncio does without it
    from callboard_agents.sandbox.zygote import main  # noqa: PLC0415  see above

    if network == "no":
        del modules["ssl"]  # an agent's module may want it for something else
    return main(int(descriptor), alone)


if __name__ == "__main__":
    sys.exit(_enter(*sys.argv[1:]))
