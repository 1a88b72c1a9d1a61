"""What an executor is: the way in which attempts run, inline, in a thread or in a child process.

`Running` chooses one for each attempt and keeps the timers, the cancellation and the outcome; an
executor runs the handler, and says once when it has begun and once when it has ended.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Raw

from callboard_agents.run import Run
from callboard_broker.wire import Failure

__all__ = ["Executor", "Watching"]


class Watching(Protocol):
    """Whom executors tell; each is called on the host's loop."""

    def begun(self, run: Run) -> None:
        """The handler runs now."""

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
