"""Gives commands: finds whose task it is, posts, and waits for the router's word."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from callboard.cli.asking import meant
from callboard.cli.loop import run
from callboard.cli.reaching import reach
from callboard.cli.screen import Screen
from callboard_broker.client import Board
from callboard_broker.commanding import CommandDetails

__all__ = ["Shared", "give", "whoami"]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all commands of this kind are told: --tenant, --nats, --prefix and --json."""

    tenant: str | None
    nats: str | None
    prefix: str | None
    _: KW_ONLY
    json: bool


def give(
    verb: str,
    ids: Sequence[str],
    details: CommandDetails,
    *,
    said: str,
    shared: Shared,
    instead: Callable[[Board, str, str], Awaitable[str]] | None = None,
) -> None:
    """Give one command to each of `ids`, in order, until one is refused.

    said: of a task to which it was given. instead: chooses the verb for a task and its tenant.
    Raises `CommandRefused`, `CommandUnanswered`, `UnknownTask`, `NoResponder`, `BadInput`.
    """
    details["by"] = whoami()

    async def work() -> None:
        screen = Screen(json=shared.json)
        async with reach(shared.nats, shared.prefix, name=f"callboard {verb}") as board:
            for task in ids:
                found, owner = await meant(board, task, shared.tenant)
                chosen = verb if instead is None else await instead(board, found, owner)
                await board.command(chosen, found, tenant=owner, **details)
                if shared.json:
                    screen.document({"id": found, "tenant": owner, "verb": chosen})
                else:
                    screen.line(f"{found} {said}")

    run(work())


def whoami() -> str:
    """Who gives commands from here: the user and the machine, as they call themselves."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        user = "?"
    return f"{user}@{socket.gethostname()}"
