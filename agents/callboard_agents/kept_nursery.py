"""The nursery of one host, kept open: when its zygote has died, another one is started.

Whoever waits for a child meanwhile goes on waiting; the children that ran have ended with the old
zygote, and their runs have been told so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from callboard_agents.sandbox import CellPlan, Child, Nursery, available, open_nursery
from callboard_agents.sandbox.living import Living
from callboard_broker.errors import CallboardError

__all__ = ["KeptNursery", "Opens", "keep_nursery"]

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_SETTLED_SECONDS = 30.0  # a zygote that lived so long is followed after the first pause again
_LOG = logging.getLogger("callboard.host")


class Opens(Protocol):
    """What opens a nursery, as `open_nursery` does."""

    def __call__(
        self, *, places: Sequence[str], plans: Sequence[CellPlan], require: frozenset[str]
    ) -> AbstractAsyncContextManager[Nursery]:
        """Start a zygote; end it and all its children at the exit."""
        ...


class KeptNursery:
    """Children by capability, from the zygote that lives now.

    layers: those that children have; of a layer that is not among them, `reasons` may say why.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = reasons
        self.layers: frozenset[str] = frozenset()
        self._nursery: Nursery | None = None
        self._opened = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether there is a zygote now."""
        return self._nursery is not None

    def living(self) -> Living | None:
        """Return its processes at this moment; from any thread. None: there is no zygote."""
        nursery = self._nursery
        return None if nursery is None else nursery.living()

    def take(self, capability: str, tenant: str | None = None) -> Child | None:
        """Return a prepared child; None: wait for one. tenant: as of `Nursery.take`."""
        if self._nursery is None:
            return None
        try:
            return self._nursery.take(capability, tenant)
        except OSError:
            self._closed(self._nursery)
            return None

    async def wait(self, capability: str, tenant: str | None = None) -> Child:
        """Return a child as soon as there is one, of this zygote or of the next."""
        while True:
            await self._opened.wait()
            nursery = self._nursery
            if nursery is None:
                continue
            try:
                return await nursery.wait(capability, tenant)
            except OSError:
                self._closed(nursery)

    def opened(self, nursery: Nursery) -> None:
        """Take children from this one."""
        self.layers = nursery.layers
        self._nursery = nursery
        self._opened.set()

    def _closed(self, nursery: Nursery | None) -> None:
        if self._nursery is nursery:
            self._nursery = None
            self._opened.clear()

    async def keep(
        self, opening: AbstractAsyncContextManager[Nursery], first: asyncio.Future[None]
    ) -> None:
        """Have one nursery open until its zygote ends. first: done when it is open."""
        async with opening as nursery:
            try:
                self.opened(nursery)
                if not first.done():
                    first.set_result(None)
                await nursery.over.wait()
            finally:
                self._closed(nursery)


@asynccontextmanager
async def keep_nursery(
    places: Sequence[str],
    plans: Sequence[CellPlan],
    required: frozenset[str],
    *,
    opens: Opens | None = None,
) -> AsyncIterator[KeptNursery]:
    """Open it, and keep it open until the exit.

    required: layers that some tenants require; no child runs without those that this host has.
    opens: instead of `open_nursery`. Raises what the first opening raises.
    """
    reasons = await asyncio.to_thread(available)
    opens = opens or open_nursery
    kept = KeptNursery(reasons)
    offered = frozenset(layer for layer in required if not reasons.get(layer, "not known"))
    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def reopen() -> None:
        pause = _FIRST_PAUSE
        while True:
            begun = time.monotonic()
            try:
                await kept.keep(opens(places=places, plans=plans, require=offered), first)
                _LOG.error("the process that starts children has ended; it is started again")
            except (OSError, CallboardError, TimeoutError) as error:
                if not first.done():
                    first.set_exception(error)
                    return
                _LOG.error("the process that starts children does not start: %s", error)
            if time.monotonic() - begun > _SETTLED_SECONDS:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(reopen())
        try:
            await asyncio.wait([first])
            if first.exception() is None:
                yield kept
        finally:
            keeping.cancel()
    first.result()
