"""Attempts on the host's own loop, a task each."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from callboard_agents.executors import Watching
from callboard_agents.failures import failure_of
from callboard_agents.results import encode_result
from callboard_agents.run import Run

__all__ = ["Inline"]


class Inline:
    """The executor of inline agents. A coroutine that ignores its cancellation cannot be ended."""

    def __init__(self, watching: Watching, group: asyncio.TaskGroup) -> None:
        self._watching = watching
        self._group = group

    def start(self, run: Run, payload: bytes | Raw) -> None:
        """Run the handler as a task of the host."""
        run.task = self._group.create_task(self._work(run, payload))

    def stop(self, run: Run) -> None:
        """The cancellation of `run.task` is all that there is."""

    def kill(self, run: Run) -> bool:  # noqa: ARG002  an executor's interface
        """Say that it cannot be done."""
        return False

    def close(self) -> None:
        """The tasks are the group's."""

    async def _work(self, run: Run, payload: bytes | Raw) -> None:
        data: bytes | None = None
        agent = run.lane.agent
        try:
            self._watching.begun(run)
            result = run.lane.start(payload, run.context)
            if agent.is_async:
                result = await result
            data, failure = encode_result(result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if run.stop is None and task is not None and task.cancelling():
                raise  # the host itself is ending
            failure = failure_of(error)
        except BaseException as error:  # noqa: BLE001  whatever a handler raises is its outcome
            failure = failure_of(error)
        self._watching.ended(run, data, failure)
