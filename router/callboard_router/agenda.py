"""What may have become possible: waiting tasks, tasks and workflows to be settled, values to fetch.

The agenda is derived: it can be thrown away and made again from the state at any time.
"""

from __future__ import annotations

from callboard_broker.wire import Failure
from callboard_router.filling import Missing, Source, Values
from callboard_router.queueing import Waiting
from callboard_router.state import State

__all__ = ["Agenda"]


class Agenda:
    """The policy's working set over one state. lost_limit: lost attempts that end a task.

    wanted: values to be fetched from the journal or the blob store, handed in by `fetched`.
    unfillable: why a task, fan-out or workflow cannot get its payload, elements or result.
    """

    def __init__(self, state: State, lost_limit: int) -> None:
        self.waiting = Waiting()
        self.undecided: dict[str, None] = {}
        self.values = Values()
        self.wanted: dict[Source, None] = {}
        self.unfillable: dict[str, Failure] = {}
        self._state = state
        self._lost_limit = lost_limit
        self._parked: dict[str, tuple[str, set[Source]]] = {}
        self._waiting_for: dict[Source, list[str]] = {}

    def take_fresh(self) -> None:
        """Look at what the fold says has changed."""
        fresh = self._state.fresh
        while fresh:
            self.look_at(fresh.popleft())

    def look_at_everything(self) -> None:
        """Begin anew, as a router does whose epoch begins."""
        self.waiting = Waiting()
        for name in (*self._state.tasks, *self._state.flows):
            self.look_at(name)

    def look_at(self, name: str) -> None:
        """See where a task or workflow belongs."""
        task = self._state.tasks.get(name)
        if task is None:
            flow = self._state.flows.get(name)
            if flow is None:
                self.values.drop(name)
            elif not flow.open:
                self.undecided[name] = None
        elif task.life.state == "waiting":
            failed = task.life.failure is not None or name in self.unfillable
            if failed or task.life.lost >= self._lost_limit:
                self.undecided[name] = None
            else:
                self.waiting.push(task)

    def is_parked(self, key: str) -> bool:
        """Whether the values that it needs are being fetched."""
        return key in self._parked

    def park(self, key: str, flow: str, missing: Missing) -> None:
        """Wait until the missing values have come."""
        self._parked[key] = (flow, set(missing.sources))
        for source in missing.sources:
            if source not in self._waiting_for:
                self.wanted[source] = None
            self._waiting_for.setdefault(source, []).append(key)

    def fetched(self, source: Source, value: object) -> None:
        """A wanted value has come; a `Failure` says that it is not to be had."""
        for key in self._waiting_for.pop(source, ()):
            flow, sources = self._parked.get(key, ("", set()))
            if source not in sources:
                continue
            if isinstance(value, Failure):
                self.unfillable[key] = value
            elif flow in self._state.flows:
                self.values.put(flow, source, value)
            sources.discard(source)
            if not sources or isinstance(value, Failure):
                del self._parked[key]
                self.look_at(key)

    def give_up(self, key: str, failure: Failure) -> None:
        """Its payload or result cannot be made."""
        self.unfillable[key] = failure
        self.undecided[key] = None
