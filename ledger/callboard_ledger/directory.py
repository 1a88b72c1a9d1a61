"""The ledger's own directory: its store, the files of the audit log, and a lock.

One ledger at a time uses a directory: two would undo each other's positions. The lock is the
kernel's, so it ends with the process that held it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from callboard_broker.errors import StoreLocked

__all__ = ["LedgerDirectory"]


class LedgerDirectory:
    """`path`, created with mode 0700. `with` takes and releases its lock.

    Raises `StoreLocked` if another ledger has it, and `OSError` as it comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    @property
    def database(self) -> Path:
        return self.path / "ledger.db"

    @property
    def lines(self) -> Path:
        """The database of what handlers log."""
        return self.path / "logs.db"

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path / "ledger.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                raise StoreLocked(
                    f"another ledger already uses {self.path}; stop it, or give this one a "
                    "directory of its own"
                ) from None
            raise
        self._lock = lock
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)
        self._lock = -1
