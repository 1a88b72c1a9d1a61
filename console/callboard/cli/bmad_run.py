"""Runs a planned workflow for `callboard bmad run`: posts it, and works on it in this process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from callboard.cli.bmad_screen import show_outcome
from callboard.cli.following import follow_or_name, follow_to_end, say_if_nobody_offers
from callboard.cli.reaching import reach
from callboard.cli.screen import Screen
from callboard.cli.working import working
from callboard.connecting import locate
from callboard.hosting import host_options
from callboard_broker.errors import TaskError
from callboard_broker.handle import Handle
from callboard_broker.subjects import SHARED_POOL
from callboard_integrations.bmad.assignment import branches, gathered
from callboard_integrations.bmad.choosing import RunnerChoice, chosen_runner
from callboard_integrations.bmad.flow import RunOptions, to_workflow
from callboard_integrations.bmad.persona_agents import Workshop, agents_of
from callboard_integrations.bmad.plan import Plan

__all__ = ["Asked", "run_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command was told. choice: None if the agents run elsewhere."""

    project: Path
    plan: Plan
    options: RunOptions
    choice: RunnerChoice | None
    timeout: float
    tenant: str
    key: str | None
    nats: str | None
    prefix: str | None
    wait: bool


async def run_plan(asked: Asked, screen: Screen) -> int:
    """Post it, and follow it to its end; the exit code."""
    flow = to_workflow(asked.plan, asked.options)
    flow.spec()  # whatever can never run is refused before anything begins
    personas = {one.capability: one for step in asked.plan.steps for one in step.personas}
    async with AsyncExitStack() as stack:
        board = await stack.enter_async_context(
            reach(asked.nats, asked.prefix, name="callboard bmad run", tenant=asked.tenant)
        )
        if asked.choice is not None:
            workshop = Workshop(asked.project, chosen_runner(asked.choice), timeout=asked.timeout)
            options = host_options(locate(asked.nats, asked.prefix), pool=SHARED_POOL)
            agents = agents_of(workshop, list(personas.values()))
            await stack.enter_async_context(working(agents, options))
        handle = await board.run(flow, key=asked.key)
        _say_what_is_asked(asked, handle, screen)
        if asked.choice is None:
            await say_if_nobody_offers(board, set(personas), screen)
        if not asked.wait or screen.json:
            return await follow_or_name(handle, screen, wait=asked.wait)
        return await _follow(asked, handle, screen)


def _say_what_is_asked(asked: Asked, handle: Handle, screen: Screen) -> None:
    if asked.options.other_answers is not None:
        return
    if left := [name for name in asked.plan.gates if name not in asked.options.answers]:
        screen.note(f"it will ask for {', '.join(left)}")
        screen.note(f"answer with: callboard signal {handle.id} NAME true (or false)")
    if set(left) & set(asked.plan.checkpoints):
        listed = f"callboard list --workflow {handle.id} --kind flow"
        screen.note(f"answer for one story alone with its own id: {listed}")


async def _follow(asked: Asked, handle: Handle, screen: Screen) -> int:
    try:
        await follow_to_end(handle, screen)
    except asyncio.CancelledError:
        screen.note(f"the workflow stays on the board: callboard status {handle.id}")
        raise
    try:
        result = await handle.result()
    except TaskError as error:
        screen.note(f"callboard: {error}")
        screen.note(f"when the cause is gone: callboard resume {handle.id}")
        return 1
    held = branches(result)
    show_outcome(screen, gathered(result["artifacts"]), held)
    if held:
        screen.note(f"callboard bmad merge {asked.project} --run {asked.options.run} merges them")
    return 0
