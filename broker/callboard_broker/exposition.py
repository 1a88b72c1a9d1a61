"""The metrics endpoint of one process, in the text format of Prometheus.

A thread of prometheus-client serves HTTP. What a process counts as it happens lies in its registry;
what it has at a moment is gathered on its own event loop at each scrape, so that no other thread
looks at its state. Whoever opens no endpoint imports nothing of this and counts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput

__all__ = ["BUCKETS", "Bounded", "OnLoop", "new_registry", "shown"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0)
"""Upper bounds in seconds: from a hand-off to a long run."""

_MOST = 100
_SCRAPE_SECONDS = 5.0


class Bounded:
    """The first names as they are, every further one as `other`: labels must not grow for ever."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        """The label to use for `name`."""
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return "other"
        self._known.add(name)
        return name


class OnLoop(Collector):
    """Awaits `gather` on the loop that made it, and shows what that returns.

    A loop that does not answer within five seconds fails the scrape.
    """

    def __init__(self, gather: Callable[[], Coroutine[Any, Any, list[Metric]]]) -> None:
        self._gather = gather
        self._loop = asyncio.get_running_loop()

    def collect(self) -> Iterable[Metric]:
        """From the thread of a scrape."""
        gathered = asyncio.run_coroutine_threadsafe(self._gather(), self._loop)
        return gathered.result(_SCRAPE_SECONDS)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what there is, is known at a scrape."""
        return ()


def new_registry() -> CollectorRegistry:
    """A registry with the CPU, memory and open files of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@asynccontextmanager
async def shown(endpoint: Endpoint, registry: CollectorRegistry) -> AsyncIterator[None]:
    """Serve `registry` under `/metrics`. Raises `BadInput` if the address cannot be had."""
    try:
        server, thread = start_http_server(endpoint.port, endpoint.address, registry)
    except OSError as error:
        where = f"{endpoint.address}:{endpoint.port}"
        raise BadInput("metrics", f"no endpoint at {where}: {error.strerror or error}") from None
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
