"""Computes something from the memory of this moment, while the process goes on and changes it.

The kernel copies the process, and each page of it only when one of the two changes it: what has to
wait is the event loop for a few milliseconds, whatever the size of the state. The copy computes,
writes its answer into a pipe and ends; it has no part in the connection, in signals or in clean-up.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress

__all__ = ["ForkFailed", "forked"]

_READ_BYTES = 1 << 20
_STDERR = 2
_FIRST_DESCRIPTOR = 3


class ForkFailed(RuntimeError):
    """The copy did not come to an end; what it was to compute is not there."""


async def forked(compute: Callable[[], bytes]) -> bytes:
    """Run `compute` on a copy of this process and return what it returns.

    It must not touch the event loop, sockets or threads. Where processes cannot be copied, it runs
    here and holds everything up. Raises `ForkFailed`.
    """
    if sys.platform == "win32":
        return compute()
    reading, writing = os.pipe()
    try:
        with warnings.catch_warnings():
            # Threads do not live on in the copy, and it uses nothing that they may have locked.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise ForkFailed(f"this process cannot be copied: {error}") from error
    if pid == 0:
        _compute_and_end(compute, writing)
    os.close(writing)
    try:
        # In a thread of its own: a cancelled wait must end the copy, and not wait for it.
        data = await asyncio.to_thread(_read_all, reading)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise
    finally:
        status = await asyncio.shield(asyncio.to_thread(_reap, pid))
    if status:
        raise ForkFailed(f"the copy of this process ended with {status} before it was done")
    return data


def _compute_and_end(compute: Callable[[], bytes], writing: int) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)  # the parent's loop must not hear of this process's signals
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        gc.disable()  # it would write into every page
        _close_all_but(writing)
        left = memoryview(compute())
        while left:
            left = left[os.write(writing, left) :]
        code = 0
    except BaseException:  # noqa: BLE001  it ends here, and the parent only learns that it failed
        os.write(_STDERR, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _close_all_but(kept: int) -> None:
    """Above all the sockets: the server must see the parent's end even while this one lives."""
    os.closerange(_FIRST_DESCRIPTOR, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _read_all(reading: int) -> bytes:
    with open(reading, "rb", buffering=0) as pipe:
        parts = iter(lambda: pipe.read(_READ_BYTES), b"")
        return b"".join(parts)


def _reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
