"""The tree of commands. A command's module is imported when it is called: each of a board's own
processes starts as one command, and must not load what the others need.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

__all__ = ["app"]

# In the order of the help page. Without a name after the colon, the module's `app`.
_COMMANDS = MappingProxyType(
    {
        "demo": "callboard.cli.demo",
        "up": "callboard.cli.up",
        "submit": "callboard.cli.submit",
        "run": "callboard.cli.run",
        "status": "callboard.cli.status",
        "list": "callboard.cli.listing",
        "stats": "callboard.cli.stats",
        "failures": "callboard.cli.failures",
        "explain": "callboard.cli.explaining",
        "logs": "callboard.cli.logs",
        "cancel": "callboard.cli.control:cancel_app",
        "pause": "callboard.cli.control:pause_app",
        "resume": "callboard.cli.control:resume_app",
        "approve": "callboard.cli.gates:approve_app",
        "signal": "callboard.cli.gates:signal_app",
        "dead": "callboard.cli.dead",
        "budget": "callboard.cli.budget",
        "agents": "callboard.cli.agents",
        "audit": "callboard.cli.audit",
        "bmad": "callboard.cli.bmad",
        "caef": "callboard.cli.caef",
        "config": "callboard.cli.config",
        "doctor": "callboard.cli.doctor",
        "router": "callboard.cli.router",
        "ledger": "callboard.cli.ledger",
        "projector": "callboard.cli.projector",
        "cerebral": "callboard.cli.cerebral",
    }
)

_EPILOG = """Begin with: callboard demo

Exit codes: 0 done; 1 the task failed, or the audit log does not verify; 2 bad usage or input, or \
the router refuses; 3 no server or no component answers; 130 interrupted.

CALLBOARD_DEBUG=1 shows the traceback of an error, NO_COLOR=1 takes the colours away."""


class _Commands(TyperGroup):
    """A group whose commands are modules that hold an `app`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  click's signature
        if cmd_name not in _COMMANDS:
            return None
        found = self.commands.get(cmd_name)
        if found is None:
            module, _, name = _COMMANDS[cmd_name].partition(":")
            loaded = getattr(importlib.import_module(module), name or "app")
            found = typer.main.get_command(loaded)
            found.name = cmd_name
            self.commands[cmd_name] = found
        return found


app = typer.Typer(
    cls=_Commands,
    name="callboard",
    add_completion=False,
    no_args_is_help=True,
    epilog=_EPILOG,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        typer.echo(f"callboard {importlib.metadata.version('callboard')}")
        raise typer.Exit


@app.callback()
def callboard(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Run agents in parallel, by capability, within budgets, with proof of what happened."""
