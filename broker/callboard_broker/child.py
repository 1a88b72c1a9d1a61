"""A child process that never outlives its parent.

On Linux the kernel itself sends the child a signal when its parent dies (PR_SET_PDEATHSIG), so
not even a `kill -9` of the parent leaves one behind. The child leads a session of its own: a
Ctrl-C in the terminal reaches the parent only, which then stops its children in order.

The kernel watches the *thread* that created the child, not the process: call `start` from the
main thread, or from one that lives at least as long as the child is needed. A worker of
`asyncio.to_thread` does not; it takes its children with it when its pool shuts down.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["kill", "start", "stop", "wait"]

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05
# Loaded here, because between fork and exec the child must not import or search for anything.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start(
    argv: Sequence[str],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `argv`; it gets `death_signal` when the calling thread ends (see the module).

    Its output is appended to `log` (created with mode 0600), or goes where the parent's goes.
    Of the parent's file descriptors it inherits `pass_fds` only. Elsewhere than on Linux there
    is no such signal: a killed parent then leaves the child running, and whoever must know
    gives it a lock to hold (`pass_fds`). Raises `OSError` if `argv[0]` cannot be run.
    """
    output = None
    if log is not None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603  the caller's own program, without a shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=_tie(os.getpid(), death_signal),  # noqa: PLW1509  a few system calls only
        )
    finally:
        if output is not None:
            os.close(output)


def stop(process: subprocess.Popen[bytes], grace_seconds: float = 10.0) -> int:
    """Ask the child to end (SIGTERM), kill it after `grace_seconds`; return its exit code.

    Only the child itself is signalled, not what it may have started. Does nothing to a child
    that has ended already.
    """
    process.terminate()
    try:
        return process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        return kill(process)


def kill(process: subprocess.Popen[bytes]) -> int:
    """End the child at once (SIGKILL) and return its exit code when it is really gone."""
    process.kill()
    return process.wait()


async def wait(process: subprocess.Popen[bytes]) -> int:
    """Return the child's exit code (negative: the signal that ended it) as soon as it ends.

    No thread waits: a blocked one would outlive a cancellation and hold up the end of the loop.
    """
    if sys.platform == "linux" and process.poll() is None:
        descriptor = os.pidfd_open(process.pid)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    while (code := process.poll()) is None:  # noqa: ASYNC110  without a pidfd there is no event
        await asyncio.sleep(_POLL_SECONDS)
    return code


def _tie(parent: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what the child runs before its program, or None where the kernel cannot do it."""
    libc = _LIBC
    if libc is None:
        return None

    def tie() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        # The parent may have died before the line above: then no signal will ever come.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return tie
