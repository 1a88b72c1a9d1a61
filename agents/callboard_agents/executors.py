"""What an executor is: the way in which attempts run, inline, in a thread or in a child process.

`Running` chooses one for each attempt and keeps the timers, the cancellation and the outcome; an
executor runs the handler, and says once when it has begun and once when it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Raw

from callboard_agents.run import Run
from callboard_broker.wire import Failure

if TYPE_CHECKING:
    from callboard_agents.facts import Attempt
    from callboard_agents.log_book import Page

__all__ = ["ChildWords", "Executor", "Side", "Watching"]


class Side(Protocol):
    """What a handler says and wants, as the host deals with it; of one attempt."""

    heard_at: float
    """When it last gave a sign of life, of `time.monotonic()`."""
    page: Page | None
    """Of what it has logged, if it has."""

    @property
    def used(self) -> dict[str, float]:
        """What it has used so far, by unit."""
        ...

    def cancel(self) -> None:
        """The attempt is told to stop: what it says and wants is of no interest."""


class ChildWords(Side, Protocol):
    """Of an attempt in a child process."""

    attempt: Attempt

    @property
    def level(self) -> int:
        """The least that is worth logging."""
        ...

    def tell(self, kind: str, data: bytes) -> None:
        """Hear what needs no answer. Raises `BadInput` for what no handler says."""

    async def ask(self, kind: str, data: bytes) -> bytes:
        """Do what is wanted, and return the answer. Raises what the handler shall get."""
        ...


class Watching(Protocol):
    """Whom executors tell; each is called on the host's loop."""

    def begun(self, run: Run, *, waited: bool = False) -> None:
        """The handler runs now. waited: its time counts from here."""

    def ended(self, run: Run, data: bytes | None, failure: Failure | None) -> None:
        """It has ended, with the JSON of its result or with a failure. Said once of each run."""


class Executor(Protocol):
    """One way to run attempts; called on the host's loop."""

    def start(self, run: Run, payload: bytes | Raw) -> None:
        """Run the handler. A coroutine that serves the run is `run.task`, for `Running` to cancel.

        Raises nothing: what fails is told as the run's end.
        """

    def stop(self, run: Run) -> None:
        """Ask the handler to end; `run.stop` says why."""

    def kill(self, run: Run) -> bool:
        """End the handler whatever it does; False: it cannot be done."""
        ...

    def close(self) -> None:
        """Nothing will be started any more."""
