"""The private directory of one embedded server, and the lock that keeps a second one out.

nats-server itself starts silently on a directory that another server is using, and both then
ruin it; so Callboard takes a flock on the file `lock`. The kernel drops it when the last
process that holds it is gone, hence a lock is never stale, whatever was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path

from callboard_broker.errors import ServerFailed, StoreLocked

__all__ = ["ServerStore"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class ServerStore:
    """The store directory `.path`; `acquire` and `release` its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def acquire(self) -> int:
        """Create the directory if need be, lock it, and return the descriptor of the lock.

        A process that inherits the descriptor holds the lock too. Does nothing if this object
        holds it already. Raises `StoreLocked` or `ServerFailed`.
        """
        if self._lock is not None:
            return self._lock
        try:
            self._make_private()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.path / "lock", flags, 0o600)
        except OSError as error:
            raise ServerFailed(
                f"cannot use {self.path} as a store: {error}; choose another directory"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held = self._holder(descriptor)
            os.close(descriptor)
            raise StoreLocked(
                f"the store {self.path} is in use by {held}; stop that one, join its server "
                "with --nats URL, or choose another store"
            ) from error
        self._lock = descriptor
        self.note()
        return descriptor

    def note(self, server: int | None = None, url: str | None = None) -> None:
        """Write into the lock who holds it, for whoever is refused."""
        if self._lock is not None:
            record = {"owner": os.getpid(), "server": server, "url": url}
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, json.dumps(record).encode(), 0)

    def release(self) -> None:
        """Unlock the directory, for every process that inherited the lock."""
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def write_private(self, name: str, text: str) -> Path:
        """Write a file that only its owner may read (a configuration may hold secrets)."""
        path = self.path / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  a descriptor
            file.write(text)
        return path

    def _make_private(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not stat.S_IMODE(self.path.stat().st_mode) & _OTHERS:
            return
        # Never take rights away from a directory that holds other things: it may be /tmp.
        if any(self.path.iterdir()) and not (self.path / "lock").is_file():
            raise ServerFailed(
                f"{self.path} is open to other users and holds files that are not a store's; "
                "name a directory of its own, for example one inside it"
            )
        self.path.chmod(0o700)

    @staticmethod
    def _holder(descriptor: int) -> str:
        try:
            record = json.loads(os.pread(descriptor, 4096, 0))
            owner, server, url = record["owner"], record["server"], record["url"]
        except (ValueError, KeyError, TypeError):
            return "another process"  # it has just locked it, and not signed yet
        if server is None:
            return f"process {owner}, which is starting a server"
        return f"process {owner} (nats-server {server} at {url})"
