"""`callboard logs`: what the handlers of a task or workflow logged, between what happened to it.

What is past is sorted by time. With --follow, what happens comes as it is heard, until the end.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, get_args

import msgspec
import typer
from rich.text import Text

from callboard.cli.asking import ask_status, meant
from callboard.cli.loop import run
from callboard.cli.milestones import MOST_TASKS, Mark, mark_of, marks_of, tasks_below
from callboard.cli.options import Json, Nats, Owner, Prefix, Thing, new_app
from callboard.cli.reaching import reach
from callboard.cli.screen import STATES, Screen, visible
from callboard_broker.client import Board
from callboard_broker.log_following import LogFollowing, LogsWanted
from callboard_broker.log_lines import Level, LoggedLine, level_number
from callboard_ledger.views import CommandView

__all__ = ["app"]

app = new_app()

_LEVEL_COLOURS = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}
_LEVELS = get_args(Level)


@app.command(
    epilog="callboard logs 17\n\ncallboard logs 17 --follow\n\n"
    "callboard logs 12.review.3 --level warning\n\n"
    "callboard logs 17 --json | jq -r 'select(.kind == \"line\") | .message'\n\n"
    "Of a workflow: all of its steps, and what they spawned. Lines are kept for some days and up "
    "to some size (the settings log.max_days, log.max_mb). Exit code 1 with --follow: the task "
    "failed."
)
def logs(  # noqa: PLR0913  each is an option of the command
    task: Thing,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")
    ] = False,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help=f"The least: {', '.join(_LEVELS)}.")
    ] = "debug",
    last: Annotated[
        int | None,
        typer.Option(
            "--last", "-n", min=1, max=1000, help="Only so many of the newest lines, and no marks."
        ),
    ] = None,
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show what handlers logged, and what happened to their tasks meanwhile."""
    level_number(level, "--level")

    async def work() -> int:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard logs") as board:
            found, owner = await meant(board, task, tenant)
            story = _Story(board, found, owner, msgspec.convert(level, Level), last)
            if follow:
                return await story.follow(_Page(screen, story.id))
            await story.show(_Page(screen, story.id))
            return 0

    raise typer.Exit(run(work()))


class _Story:
    """What is to be told of one task or workflow."""

    def __init__(
        self, board: Board, task: str, tenant: str, level: Level, last: int | None
    ) -> None:
        self._board = board
        self.id = task
        self._tenant = tenant
        self._level: Level = level
        self._last = last

    async def show(self, page: _Page) -> None:
        """What is past."""
        wanted = self._board.logs(self.id, tenant=self._tenant, level=self._level, last=self._last)
        if not await self._tell_past([line async for line in wanted], page):
            page.note("nothing was logged, and nothing has happened yet")

    async def follow(self, page: _Page) -> int:
        """What is past and what comes; the exit code says how it ended."""
        board = self._board
        heard: asyncio.Queue[LoggedLine | Mark | None] = asyncio.Queue()
        wanted = LogsWanted(self.id, self._tenant, self._level, self._last, follow=True)
        async with LogFollowing(board, wanted) as following, asyncio.TaskGroup() as group:
            handle = following.handle

            async def hear_lines() -> None:
                async for line in following.live():
                    heard.put_nowait(line)
                heard.put_nowait(None)

            async def hear_marks() -> None:
                async for update in handle:
                    mark = mark_of(update, board.connection.server_now_ms())
                    if mark is not None:
                        heard.put_nowait(mark)

            marking = group.create_task(hear_marks())
            await self._tell_past([line async for line in following.past()], page)
            group.create_task(hear_lines())
            while (entry := await heard.get()) is not None:
                page.add(entry)
            marking.cancel()
        page.end(handle.state, board.connection.server_now_ms())
        return 0 if handle.state == "succeeded" else 1

    async def _tell_past(self, lines: list[LoggedLine], page: _Page) -> bool:
        """Write it in the order of time; say whether there was anything."""
        marks = await self._marks({line.task for line in lines}, page)
        entries: list[LoggedLine | Mark] = [*lines, *marks]
        for entry in sorted(entries, key=_order):
            page.add(entry)
        return bool(entries)

    async def _marks(self, seen: set[str], page: _Page) -> list[Mark]:
        """Of the task, of its steps, and of what has logged."""
        if self._last is not None:
            return []
        view = await ask_status(self._board, self.id, self._tenant)
        if isinstance(view, CommandView):
            return []
        below = await tasks_below(self._board, self.id, self._tenant)
        tasks = list(dict.fromkeys([self.id, *below, *sorted(seen)]))
        if len(tasks) > MOST_TASKS:
            page.note(f"what happened to tasks is shown for the first {MOST_TASKS} of them")
        return await marks_of(self._board, tasks[:MOST_TASKS], self._tenant)


class _Page:
    """Where the entries are written. task: what was asked for; others are named."""

    def __init__(self, screen: Screen, task: str) -> None:
        self._screen = screen
        self._task = task
        self._states: dict[str, str] = {}

    def note(self, text: str) -> None:
        """Something beside the entries."""
        self._screen.note(text)

    def add(self, entry: LoggedLine | Mark) -> None:
        """Write one entry; a state that was told already is not told again."""
        if isinstance(entry, Mark):
            known = self._states.get(entry.task) == entry.state and entry.state != "waiting"
            if known and entry.attempt is None:
                return
            self._states[entry.task] = entry.state
            if self._screen.json:
                self._screen.document(entry)
            else:
                self._screen.line(self._mark(entry))
        elif self._screen.json:
            self._screen.document({"kind": "line", **msgspec.to_builtins(entry)})
        else:
            self._line(entry)

    def end(self, state: str, at_ms: int) -> None:
        """The task has ended, if nobody has said so yet."""
        self.add(Mark(at_ms, self._task, state, state))

    def _mark(self, mark: Mark) -> Text:
        text = self._head(mark.at, mark.task)
        style = STATES.get(mark.state, "")
        return text.append(visible(f"-- {mark.text}"), style=style)

    def _line(self, line: LoggedLine) -> None:
        colour = _LEVEL_COLOURS.get(line.level, "")
        text = self._head(line.at, line.task)
        text.append(f"{line.level.upper():<8} ", style=colour)
        first, *more = line.message.splitlines() or [""]
        text.append(visible(first), style=colour)
        for name, value in (line.fields or {}).items():
            text.append(visible(f" {name}={value}"), style="dim")
        self._screen.line(text)
        for each in [*more, *line.error.splitlines()]:
            self._screen.line(Text(visible(f"    {each}"), style=colour))

    def _head(self, at_ms: int, task: str) -> Text:
        when = datetime.fromtimestamp(at_ms / 1000).astimezone()
        text = Text(f"{when:%Y-%m-%d %H:%M:%S}.{at_ms % 1000:03d} ", style="dim")
        return text.append(visible(f"{task}  "), style="bold")


def _order(entry: LoggedLine | Mark) -> tuple[int, int, str, int, int]:
    """By time; of one moment, a dispatch comes before lines, and these before an end."""
    if isinstance(entry, LoggedLine):
        return entry.at, 1, entry.task, entry.attempt, entry.n
    return entry.at, 0 if entry.state == "running" else 2, entry.task, entry.attempt or 0, 0
