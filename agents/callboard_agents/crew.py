"""The places of a pool that runs: added, retired, and replaced one after the other.

A replacement works before the one that it replaces is drained; one that does not come up leaves the
old one where it is, and ends the rolling restart.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace

from callboard_agents.options import HostOptions
from callboard_agents.place import Place
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput
from callboard_broker.publisher import Publisher

__all__ = ["Crew"]

_READY_SECONDS = 60.0  # as long as a new process may take until it works
_LOG = logging.getLogger("callboard.pool")


class Crew:
    """Processes with all agents of `modules` each. group: what keeps each of them alive.

    options: of every host; names get `-0`, `-1`, ... appended, and never one a second time; the
    metrics of each are at a port of its own after the one that is given.
    rolling: a process and its replacement are both there, so that their number means nothing.
    """

    def __init__(
        self,
        modules: Sequence[str],
        options: HostOptions,
        *,
        publisher: Publisher,
        group: asyncio.TaskGroup,
    ) -> None:
        self._modules = modules
        self._options = options
        self._publisher = publisher
        self._group = group
        self._numbers = itertools.count()
        self._places: list[Place] = []
        self.rolling = False

    @property
    def pids(self) -> list[int]:
        """The processes that live now, also those that are being drained."""
        return [place.pid for place in self._places if place.pid is not None]

    @property
    def active(self) -> list[Place]:
        """The places that take work, or soon will."""
        return [place for place in self._places if not place.retired]

    def resize(self, number: int) -> None:
        """Start processes, or drain the youngest, until there are so many."""
        active = self.active
        for _ in range(number - len(active)):
            self._add()
        for place in active[number:]:
            place.retire()

    def kill(self) -> None:
        """End every process at once."""
        for place in self._places:
            place.kill()

    async def roll(self) -> bool:
        """Replace every process by a new one; say whether all new ones work."""
        self.rolling = True
        try:
            return await self._roll()
        finally:
            self.rolling = False

    async def _roll(self) -> bool:
        for old in self.active:
            if old.retired or old.over.is_set():
                continue
            new = self._add(trial=True)
            if not await _works(new):
                new.retire()
                _LOG.error("%s does not come up: %s goes on", new.options.name, old.options.name)
                return False
            old.retire()
        return True

    def _add(self, *, trial: bool = False) -> Place:
        options = replace(
            self._options,
            name=f"{self._options.name}-{next(self._numbers)}",
            metrics=self._free_endpoint(),
        )
        place = Place(self._modules, options, trial=trial)
        self._places.append(place)
        self._group.create_task(self._keep(place))
        return place

    def _free_endpoint(self) -> Endpoint | None:
        first = self._options.metrics
        if first is None:
            return None
        taken = {place.options.metrics for place in self._places}
        return next(one for n in itertools.count(1) if (one := first.plus(n)) not in taken)

    async def _keep(self, place: Place) -> None:
        try:
            await place.keep(self._publisher)
        except BadInput as error:
            if not place.trial:
                raise
            _LOG.error("%s", error)
        finally:
            self._places.remove(place)


async def _works(place: Place) -> bool:
    """Wait until the place works, or it is certain that it does not."""
    ready = asyncio.ensure_future(place.ready.wait())
    over = asyncio.ensure_future(place.over.wait())
    try:
        await asyncio.wait(
            (ready, over), timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        ready.cancel()
        over.cancel()
    return place.ready.is_set()
