"""Options that most commands share."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer
from typer.models import Default

__all__ = [
    "Capability",
    "Follow",
    "Json",
    "Key",
    "Metrics",
    "Nats",
    "Owner",
    "Prefix",
    "Reason",
    "Rows",
    "Since",
    "Tenant",
    "Thing",
    "Trace",
    "Whose",
    "document",
    "duration",
    "new_app",
    "seconds",
]

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
Metrics = Annotated[
    int | None,
    typer.Option(
        "--metrics",
        metavar="PORT",
        min=1,
        max=65_000,
        help="Show metrics to Prometheus at this port.",
        show_default=False,
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

Whose = Annotated[str, typer.Option("--tenant", "-t", help="Whose; `all` for each.")]
Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Post it once only, whoever repeats.", show_default=False),
]
Trace = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="The trace that it is a part of: 32 digits 0-9 a-f.",
        show_default=False,
    ),
]
Capability = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only for this one.", show_default=False)
]
Rows = Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows at most.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on showing it until its end, or Ctrl-C.")
]
Thing = Annotated[str, typer.Argument(metavar="ID", help="A task, a step or a workflow.")]


def document(text: str) -> Any:
    """The declaration of an option whose value is JSON, wherever that stands."""
    return typer.Option(metavar="JSON|@FILE|-", help=text, show_default=False)


def duration(text: str) -> Any:
    """The declaration of an option that is a number of seconds."""
    return typer.Option(parser=seconds, metavar="SECONDS", help=text, show_default=False)


def seconds(text: str) -> float:
    """`90`, `90s`, `1.5m`, `2h`: seconds. For typer's `parser`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration such as 90, 90s, 1.5m or 2h")
    return float(found[1]) * _UNITS[found[2] or "s"]


Since = Annotated[
    float | None,
    typer.Option(
        parser=seconds,
        metavar="TIME",
        help="Only of this long ago or later: 30m, 1h, 7d.",
        show_default=False,
    ),
]


def new_app(text: str | None = None) -> typer.Typer:
    """An app for one command, or with `text` for a group of them; its help is plain in a pipe."""
    return typer.Typer(
        help=Default(None) if text is None else text,  # None itself would hide a docstring
        add_completion=False,
        no_args_is_help=text is not None,
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
