"""`callboard demo`: agents review a real source tree in parallel, on a board of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from callboard.cli.demo_screen import DemoScreen, show_result
from callboard.cli.loop import run
from callboard.cli.options import Json, new_app
from callboard.cli.screen import Screen
from callboard.demo.performance import Performance, Result, perform
from callboard.demo.planning import default_target, plan
from callboard.demo.report import to_markdown
from callboard_broker.errors import BadInput

__all__ = ["app"]

app = new_app()

_EPILOG = """callboard demo

callboard demo ./src --agents 8 --output review.md

callboard demo --kill-one

callboard demo --json | jq .run

It starts a server, a router, a ledger and the agents in a temporary folder, and leaves nothing \
behind but the report. Exit code 1: the audit log does not verify, or the findings differ."""


@app.command(epilog=_EPILOG)
def demo(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="A folder of Python files, or one file.",
            show_default="a package of the standard library",
        ),
    ] = None,
    *,
    kill_one: Annotated[
        bool, typer.Option("--kill-one", help="Kill one agent process half-way.")
    ] = False,
    agents: Annotated[int, typer.Option(min=1, max=32, help="Agent processes.")] = 4,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the report goes, as Markdown.")
    ] = Path("callboard-report.md"),
    json: Json = False,
) -> None:
    """Let agents review Python code in parallel: plan, six specialists per file, one report."""
    if kill_one and agents < 2:
        raise BadInput("agents", "with --kill-one there must be at least 2, or nobody is left")
    target = default_target() if path is None else path
    files = plan(target).files  # what cannot be reviewed is said before anything is started
    _check_writable(output)
    screen = Screen(json=json)
    play = Performance(target=target.absolute(), agents=agents, kill_one=kill_one)
    with DemoScreen(screen, f"review of {target}: {len(files)} files", agents) as watcher:
        result = run(perform(play, watcher))
    output.write_text(to_markdown(result.report, result.run), encoding="utf-8")
    if json:
        screen.document(_document(result, output))
    else:
        show_result(screen, result, output)
    raise typer.Exit(0 if result.run.audit_verified and result.same_findings is not False else 1)


def _check_writable(output: Path) -> None:
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise BadInput("output", f"{output} is not a file that can be written; name another")


def _document(result: Result, output: Path) -> dict[str, object]:
    return {
        "report": result.report,
        "run": result.run,
        "killed": None if result.killed is None else msgspec.to_builtins(result.killed),
        "same_findings": result.same_findings,
        "ready_seconds": round(result.ready_seconds, 3),
        "wall_seconds": round(result.wall_seconds, 3),
        "output": str(output),
    }
