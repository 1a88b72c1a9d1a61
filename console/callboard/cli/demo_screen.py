"""The demo as it is seen: a live table on a terminal, lines in a pipe; then the results."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from callboard.cli.screen import Cell, Screen, visible
from callboard.demo.findings import SEVERITIES
from callboard.demo.join import Report
from callboard.demo.performance import Result, Watcher
from callboard.demo.progress import Progress

__all__ = ["DemoScreen", "show_result"]

_STYLES = {"high": "bold red", "medium": "yellow", "low": "cyan", "info": "dim"}
_QUARTERS = 4
_TOP = 6


class DemoScreen(Watcher):
    """`with` shows it. On stderr, so that stdout holds nothing but the result."""

    def __init__(self, screen: Screen, title: str, agents: int) -> None:
        self._screen = screen
        self._title = title
        self._agents = agents
        self._begun = time.monotonic()
        self._progress: Progress | None = None
        self._said = 0
        self._most = 0
        self._live: Live | None = None
        if screen.errors.is_terminal:
            self._live = Live(
                get_renderable=self._picture,
                console=screen.errors,
                refresh_per_second=12,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        else:
            self._screen.note(f"{self._title}, {self._agents} agent processes")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, part: str, text: str) -> None:
        """One line, with the seconds since the start."""
        line = Text(f"{time.monotonic() - self._begun:5.1f} s  ", style="dim")
        line += Text(visible(f"{part}: {text}"), style="bold red" if part == "kill" else "")
        if self._live is not None:
            self._live.console.print(line)
        else:
            self._screen.note(line.plain)

    def moved(self, progress: Progress) -> None:
        """A picture is drawn when it is time; in a pipe every quarter of the way is a line."""
        self._progress = progress
        self._most = max(self._most, progress.running)
        total = progress.total
        if self._live is not None or not total:
            return
        quarter = progress.done * _QUARTERS // total
        if quarter > self._said:
            self._said = quarter
            self.say("review", f"{progress.done} of {total} tasks done, {progress.running} at work")

    def _picture(self) -> RenderableType:
        seconds = time.monotonic() - self._begun
        head = Text.assemble(
            (visible(self._title), "bold"), (f"  {seconds:.1f} s", "dim"), overflow="ellipsis"
        )
        progress = self._progress
        if progress is None:
            return Group(head, Text("starting a server, a router, a ledger and the agents ..."))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for justify in ("left", "left", "right", "left"):
            table.add_column(justify=justify, no_wrap=True)
        for name, step in progress.steps.items():
            total = step.total
            done = total is not None and step.done >= total
            bar = ProgressBar(total=total or 1, completed=step.done if total else 0, width=28)
            count = f"{step.done}/{'?' if total is None else total}"
            now = Text(f"{len(step.running)} at work" if step.running else "", style="cyan")
            table.add_row(Text(name, style="green" if done else ""), bar, count, now)
        busy = len(progress.hosts())
        foot = Text(
            f"{progress.running} at work on {busy} of {self._agents} processes"
            + (f", {progress.lost} lost and repeated" if progress.lost else ""),
            style="dim",
        )
        return Group(head, table, foot)


def show_result(screen: Screen, result: Result, output: Path) -> None:
    """The findings and the figures."""
    report = result.report
    screen.line()
    counts = Text("findings  ", style="bold")
    for severity in SEVERITIES:
        counts += Text(f"{report.by_severity[severity]} {severity}  ", style=_STYLES[severity])
    counts += Text(f"in {len(report.files)} files", style="dim")
    screen.line(counts)
    screen.line("  " + "  ".join(f"{name} {n}" for name, n in report.by_specialist.items()), "dim")
    screen.line()
    _show_findings(screen, report)
    screen.line()
    _show_figures(screen, result)
    screen.line(Text("report    ", style="bold") + Text(visible(str(output))))


def _show_findings(screen: Screen, report: Report) -> None:
    top = [each for each in report.findings if each.severity in ("high", "medium")][:_TOP]
    rows: list[list[Cell]] = [
        [
            Text(each.severity, style=_STYLES[each.severity]),
            f"{each.file}:{each.line}",
            each.message,
        ]
        for each in top or report.findings[:_TOP]
    ]
    if rows:
        screen.table(("severity", "where", "what"), rows)
        if (more := len(report.findings) - len(rows)) > 0:
            screen.line(f"and {more} more, in the report", "dim")
    else:
        screen.line("nothing was found", "green")


def _show_figures(screen: Screen, result: Result) -> None:
    run = result.run
    decided = sorted(each.decided for each in result.handoffs)
    audit = "verified" if run.audit_verified else "DOES NOT VERIFY"
    handed_on = f"p50 {run.handoff_p50_ms:.1f} ms, p99 {run.handoff_p99_ms:.1f} ms"
    if decided:
        handed_on += f" (decided after {decided[len(decided) // 2]:.1f} ms)"
    rows: list[list[Cell]] = [
        ["tasks", f"{run.tasks} in {run.seconds:.2f} s, on {len(run.processes)} processes"],
        ["at work", f"{run.parallelism} at once, at most"],
        ["budget", f"{run.budget_high_water} of {run.budget_limit} in use, at most"],
        ["hand-off", handed_on],
        ["lost", f"{run.attempts_lost} attempts, repeated"],
        ["audit", Text(audit, style="green" if run.audit_verified else "bold red")],
        [
            "time",
            f"{result.wall_seconds:.1f} s in all, {result.ready_seconds:.1f} s of it to start",
        ],
    ]
    if result.killed is not None:
        rows.insert(4, ["killed", f"process {result.killed.pid} ({result.killed.host})"])
    elif result.same_findings is not None:
        rows.insert(4, ["killed", "nobody: the work was done before it was half done here"])
    if result.same_findings is not None:
        same = "the same as one process alone finds" if result.same_findings else "DIFFERENT"
        style = "green" if result.same_findings else "bold red"
        rows.insert(5, ["findings", Text(same, style=style)])
    for name, value in rows:
        shown = value if isinstance(value, Text) else Text(str(value))
        screen.line(Text(f"{name:<10}", style="bold") + shown)
