"""Plays the demo: a board of its own in a temporary folder, one workflow, and what came of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from callboard.connecting import connect
from callboard.demo.figures import HandOff, JournalFigures
from callboard.demo.join import Report
from callboard.demo.progress import Progress
from callboard.demo.report import RunFigures
from callboard.demo.reviewing import review_alone, review_workflow
from callboard.stack import Stack, StackOptions
from callboard_broker.client import Board
from callboard_broker.handle import Handle
from callboard_broker.streams import Topology, last_sequence
from callboard_ledger.scan import scan
from callboard_ledger.trust import trust_of
from callboard_ledger.verify import verify_board
from callboard_ledger.views import PositionView

__all__ = ["Killed", "Performance", "Result", "Watcher", "perform"]

TENANT = "demo"
_AGENTS = "callboard.demo.agents"
_KILL_AT = 0.4
_AUDIT_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.02

# Short, so that even a death that nobody reports costs the demo seconds only.
_TIMING = {
    "CALLBOARD_LEASE__BEAT_SECONDS": "0.5",
    "CALLBOARD_LEASE__SUSPECT_SECONDS": "2",
    "CALLBOARD_LEASE__LEASE_SECONDS": "5",
    "CALLBOARD_LEASE__START_SECONDS": "2",
    "CALLBOARD_AGENTS__DRAIN_SECONDS": "2",
    "CALLBOARD_AGENTS__SLOTS_THREAD": "8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What to play. agents: processes. kill_one: whether one of them dies half-way."""

    target: Path
    agents: int = 4
    kill_one: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """The agent process that was killed. done, total: tasks at that moment."""

    host: str
    pid: int
    running: int
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it. same_findings: whether one process alone finds the same; None: not asked."""

    report: Report
    run: RunFigures
    handoffs: list[HandOff]
    killed: Killed | None
    same_findings: bool | None
    ready_seconds: float
    """From the call to a board with all of its agents."""
    wall_seconds: float
    """From the call to the end of the verification."""


class Watcher:
    """Hears how the demo goes; what a screen shows of it is its own business."""

    def say(self, part: str, text: str) -> None:
        """Something happened that a person should know."""

    def moved(self, progress: Progress) -> None:
        """The workflow is further, or nothing has happened for a while."""


async def perform(play: Performance, watcher: Watcher) -> Result:
    """Play the demo. Raises `BadInput`, `ServerFailed`, `TaskFailed`."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="callboard-demo-") as folder:
        options = StackOptions(
            folder=Path(folder),
            agents=[_AGENTS],
            processes=play.agents,
            drain_seconds=2,
            env=_TIMING,
        )
        async with Stack(options, watcher.say) as stack:
            return await _beside(stack, _review(play, stack, watcher, begun))


async def _beside(stack: Stack, work: Coroutine[None, None, Result]) -> Result:
    """Do `work`; if a part of the board fails for good meanwhile, raise that."""
    failing = asyncio.ensure_future(stack.wait())
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait([failing, working], return_when=asyncio.FIRST_COMPLETED)
        if failing.done() and not working.done():
            failing.result()
        return await working
    finally:
        for task in (failing, working):
            task.cancel()
        await asyncio.wait([failing, working])


async def _review(play: Performance, stack: Stack, watcher: Watcher, begun: float) -> Result:
    async with connect(stack.url, prefix=stack.options.prefix, tenant=TENANT) as board:
        topology = Topology(board.subjects)
        ready = time.monotonic()
        watcher.say("board", f"ready in {ready - begun:.1f} s, with {play.agents} agent processes")
        progress = Progress()
        watcher.moved(progress)
        handle = await board.run(review_workflow(play.target))
        killed = await _follow(handle, progress, watcher, play, stack)
        report = msgspec.convert(await handle.result(), Report)
        seconds = time.monotonic() - ready
        watcher.say("audit", "reading the journal and the audit log")
        audited = await _audited(board, topology)
        trust = trust_of(stack.options.folder / "ledger")
        verified = await verify_board(board.connection, topology, trust)
        figures = JournalFigures(board.subjects, handle.id)
        await scan(board.connection, topology.journal, figures.take)
        run = figures.figures(
            seconds=seconds,
            audit_verified=verified.ok and audited,
            processes=sorted(report.processes),
        )
    same = None
    if play.kill_one:
        watcher.say("check", "the same review once more, in this process alone")
        alone = await asyncio.to_thread(review_alone, play.target)
        same = (alone.findings, alone.hotspots) == (report.findings, report.hotspots)
    return Result(
        report=report,
        run=run,
        handoffs=figures.handoffs,
        killed=killed,
        same_findings=same,
        ready_seconds=ready - begun,
        wall_seconds=time.monotonic() - begun,
    )


async def _follow(
    handle: Handle, progress: Progress, watcher: Watcher, play: Performance, stack: Stack
) -> Killed | None:
    """Follow the workflow to its end; on the way, kill an agent process if that is asked for."""
    killed = None
    async for update in handle:
        progress.hear(update)
        watcher.moved(progress)
        total = progress.total
        if play.kill_one and killed is None and total and progress.done >= _KILL_AT * total:
            killed = _kill_one(progress, total, stack)
            if killed is not None:
                watcher.say(
                    "kill",
                    f"SIGKILL to process {killed.pid} ({killed.host}) with {killed.running} tasks "
                    f"at work and {killed.done} of {total} done",
                )
    return killed


def _kill_one(progress: Progress, total: int, stack: Stack) -> Killed | None:
    """Kill the busiest agent process of this demo; None if there is none at this moment."""
    keeper = stack.parts.get("agents")
    if keeper is None:
        return None
    busy = progress.hosts()
    hosts: dict[str, psutil.Process] = {}
    for process in psutil.Process(keeper).children():
        names = [word for word in process.cmdline() if word.startswith("--name=")]
        hosts.update({name.removeprefix("--name="): process for name in names})
    if not hosts:
        return None
    host = max(hosts, key=lambda name: (busy.get(name, 0), name))
    hosts[host].kill()
    return Killed(
        host=host,
        pid=hosts[host].pid,
        running=busy.get(host, 0),
        done=progress.done,
        total=total,
    )


async def _audited(board: Board, topology: Topology) -> bool:
    """Wait until everything that is stored by now is in the audit log; False if it takes long."""
    last, _ = await last_sequence(board.connection, topology.journal)
    try:
        async with asyncio.timeout(_AUDIT_SECONDS):
            while True:
                answer = msgspec.json.decode(
                    await board.ask("position", {}, tenant="all"), type=PositionView
                )
                if answer.audited >= last:
                    return True
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
    except TimeoutError:
        return False
