"""Gives commands: finds whose task it is, posts, and waits for the router's word."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence

from callboard.cli.asking import meant
from callboard.cli.loop import run
from callboard.cli.reaching import reach
from callboard.cli.screen import Screen
from callboard_broker.commanding import CommandDetails

__all__ = ["give", "whoami"]


def give(
    verb: str,
    ids: Sequence[str],
    details: CommandDetails,
    *,
    said: str,
    tenant: str | None,
    place: tuple[str | None, str | None],
    json: bool,
) -> None:
    """Give one command to each of `ids`, in order, until one is refused.

    said: of a task to which it was given. place: the options --nats and --prefix.
    Raises `CommandRefused`, `CommandUnanswered`, `UnknownTask`, `NoResponder`, `BadInput`.
    """
    details["by"] = whoami()

    async def work() -> None:
        screen = Screen(json=json)
        async with reach(*place, name=f"callboard {verb}") as board:
            for task in ids:
                found, owner = await meant(board, task, tenant)
                await board.command(verb, found, tenant=owner, **details)
                if json:
                    screen.document({"id": found, "tenant": owner, "verb": verb})
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
