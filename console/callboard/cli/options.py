"""Options that most commands share."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

__all__ = ["Json", "Nats", "Owner", "Prefix", "Reason", "Tenant", "new_app", "seconds"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Nats = Annotated[
    str | None,
    typer.Option(
        "--nats",
        metavar="URL",
        help="The NATS server. Else CALLBOARD_NATS_URL, or the running `callboard up`.",
        show_default=False,
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix", metavar="NAME", help="The board's prefix of subjects.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")]
Tenant = Annotated[str, typer.Option("--tenant", "-t", metavar="NAME", help="Whose task it is.")]

Owner = Annotated[
    str | None,
    typer.Option(
        "--tenant", "-t", metavar="NAME", help="Whose it is; else looked up.", show_default=False
    ),
]
Reason = Annotated[
    str, typer.Option(metavar="TEXT", help="Kept in the journal.", show_default=False)
]


def seconds(text: str) -> float:
    """`90`, `90s`, `1.5m`, `2h`: seconds. For typer's `parser`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration such as 90, 90s, 1.5m or 2h")
    return float(found[1]) * _UNITS[found[2] or "s"]


def new_app(text: str | None = None) -> typer.Typer:
    """An app for one command, or with `text` for a group of them; its help is plain in a pipe."""
    return typer.Typer(
        help=text,
        add_completion=False,
        no_args_is_help=text is not None,
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
