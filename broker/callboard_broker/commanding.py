"""Commands: what may be asked of a posted task or workflow, and the router's word on it.

A command is an event of the journal like a post, with a nonce, so that it may be repeated until it
is acknowledged. The router carries it out or refuses it where it stands, and says so once.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from typing import Any, TypedDict, Unpack

import msgspec
from msgspec import UNSET, Raw

from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput
from callboard_broker.wire import VERBS, Answered, Command, Event, Failure, decode_command

__all__ = ["Asked", "CommandDetails", "Commanding", "read_command"]

_TASK_ID = re.compile(r"[1-9][0-9]{0,18}(\.[a-z0-9_.-]{1,492})?")


class CommandDetails(TypedDict, total=False):
    """Keywords of `command`; which of them mean something, the verb says.

    reason, by: why, and on whose word. name: of a signal. payload: a signal's value, the edited
    payload of a redrive, the edited inputs of a resume. approved: what an approval says.
    source: the step from which a resume runs again.
    """

    reason: str
    by: str
    name: str
    payload: Any
    approved: bool
    source: str


class Commanding(ABC):
    """What may be asked of a task or workflow, by id; each returns when the router has done it.

    Each raises `CommandRefused`, `CommandUnanswered`, `BadInput`, `BoardUnreachable`.
    """

    @abstractmethod
    async def command(
        self,
        verb: str,
        task: str,
        *,
        tenant: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109  a promise of this call, with an error of its own
        **details: Unpack[CommandDetails],
    ) -> None:
        """Post a command and wait for the router's word. timeout: seconds to wait for it."""

    async def cancel(self, task: str, reason: str = "", *, tenant: str | None = None) -> None:
        """End a task, workflow or schedule; what runs is stopped, and it ends after that."""
        await self.command("cancel", task, tenant=tenant, reason=reason)

    async def pause(self, task: str, reason: str = "", *, tenant: str | None = None) -> None:
        """Start nothing new of it; what runs goes on to its end."""
        await self.command("pause", task, tenant=tenant, reason=reason)

    async def resume(
        self,
        task: str,
        *,
        source: str | None = None,
        inputs: Any = UNSET,
        tenant: str | None = None,
    ) -> None:
        """Go on after a pause; or run again what failed in a workflow, and what depends on it.

        source: run again from this step on, although it has succeeded. inputs: replace those of
        the same names. `handle` gives a handle of the new run.
        """
        details = CommandDetails() if source is None else CommandDetails(source=source)
        await self.command("resume", task, tenant=tenant, **_with(details, inputs))

    async def approve(
        self, task: str, *, approved: bool = True, reason: str = "", tenant: str | None = None
    ) -> None:
        """Decide a gate: its id, or the workflow's if only one is open there."""
        await self.command("approve", task, tenant=tenant, approved=approved, reason=reason)

    async def signal(
        self, task: str, name: str, value: Any = None, *, tenant: str | None = None
    ) -> None:
        """Give a workflow the value for which its gate of this signal waits, or will wait."""
        await self.command("signal", task, tenant=tenant, name=name, payload=value)

    async def redrive(self, task: str, payload: Any = UNSET, *, tenant: str | None = None) -> None:
        """Run a task that ended without success again. payload: instead of the posted one.

        `handle` gives a handle of the new run.
        """
        await self.command("redrive", task, tenant=tenant, **_with(CommandDetails(), payload))


def _with(details: CommandDetails, payload: Any) -> CommandDetails:
    if payload is not UNSET:
        details["payload"] = payload
    return details


def read_command(verb: str, task: str, details: CommandDetails) -> Command:
    """The command as the router reads it. Raises `BadInput` that names the field."""
    if verb not in VERBS:
        raise BadInput("verb", f"{verb!r} is none of {', '.join(VERBS)}")
    if not isinstance(task, str) or not _TASK_ID.fullmatch(task):
        raise BadInput("id", f"{task!r:.80} is no id such as 17 or 17.review.0")
    given: dict[str, Any] = {"id": task, **details}
    if "source" in given:
        given["from"] = given.pop("source")
    if "payload" in given:
        given["payload"] = Raw(encode_payload(given["payload"]))
    return decode_command(msgspec.json.encode(given))


class Asked:
    """One command under way: hears the router's word on it, as a handle hears of its task."""

    def __init__(self, _board: object, task: str, tenant: str, shard: int) -> None:
        self.id = task
        self.tenant = tenant
        self.shard = shard
        self.error: Failure | None = None
        self._answered = asyncio.Event()

    @property
    def done(self) -> bool:
        return self._answered.is_set()

    async def wait(self) -> Failure | None:
        """Return why it is refused, or None if it is carried out."""
        await self._answered.wait()
        return self.error

    def told(self, event: Event) -> None:
        """An event of the journal about the command."""
        if isinstance(event, Answered) and event.task == self.id:
            self.end(event.error)

    def end(self, error: Failure | None) -> None:
        """The router's word, from the journal or by way of the ledger."""
        if not self.done:
            self.error = error
            self._answered.set()
