"""A whole real board for an integration test: what `callboard up` starts, on a free port.

Server, router, ledger and agent hosts are processes; they end with the block, and their data with
it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from callboard.connecting import connect
from callboard.stack import Stack, StackOptions
from callboard_broker.client import Board

__all__ = ["live_board"]

_LOG = logging.getLogger("callboard.testing")


@asynccontextmanager
async def live_board(
    agents: Sequence[str] = (),
    *,
    tenant: str = "default",
    processes: int = 1,
    url: str | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Board]:
    """Start a board, and connect to it when all of it is ready; a few seconds.

    agents: modules or files, as for `callboard up --agents`; their processes import them.
    processes: agent hosts. url: of a server that runs already; by default one is started. folder:
    for data and logs; by default a temporary one. environment: further variables of its processes,
    such as `{"CALLBOARD_LEASE__LEASE_SECONDS": "5"}`. Call it from the main thread. Raises
    `ServerFailed`, `PartFailed`.
    """
    with TemporaryDirectory(prefix="callboard-", ignore_cleanup_errors=True) as temporary:
        options = StackOptions(
            folder=folder or Path(temporary),
            url=url,
            agents=list(agents),
            processes=processes,
            env=environment or {},
        )
        async with (
            Stack(options, _told) as stack,
            connect(stack.url, tenant=tenant, prefix="cb") as board,
        ):
            yield board


def _told(part: str, text: str) -> None:
    _LOG.warning("%s: %s", part, text)
