"""Runs stories for `callboard caef run`: as a rehearsal, or on the board and working on them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from callboard.cli.caef_screen import show_rehearsals, show_verdicts
from callboard.cli.following import follow_or_name, follow_to_end, say_if_nobody_offers
from callboard.cli.reaching import reach
from callboard.cli.screen import Screen
from callboard.cli.working import working
from callboard.connecting import locate
from callboard.hosting import host_options
from callboard_broker.errors import BadInput, TaskError
from callboard_broker.handle import Handle
from callboard_broker.subjects import SHARED_POOL
from callboard_integrations.caef.flow import StoryOptions, to_workflow
from callboard_integrations.caef.rehearsing import rehearse
from callboard_integrations.caef.stage_agents import StoryShop, agents_of
from callboard_integrations.caef.testing import TEST

__all__ = ["AskedStories", "rehearse_stories", "run_stories"]

_STAGES = frozenset({"caef.plan", "caef.implement", TEST, "caef.judge", "caef.verdicts"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedStories:
    """What the command was told. agents: whether the work is done here, too."""

    shop: StoryShop
    stories: list[dict[str, Any]]
    options: StoryOptions
    agents: bool
    tenant: str
    key: str | None
    nats: str | None
    prefix: str | None
    wait: bool


async def rehearse_stories(
    shop: StoryShop, stories: list[dict[str, Any]], options: StoryOptions, screen: Screen
) -> int:
    """Show what would be changed; the exit code."""
    turns = asyncio.Semaphore(options.at_once)

    async def one(story: dict[str, Any]) -> Any:
        async with turns:
            return await rehearse(
                shop, story["story"], story["edits"], options.profile_name, tokens=options.tokens
            )

    found = await asyncio.gather(*(one(story) for story in stories))
    show_rehearsals(screen, found)
    return 0 if all(each.fits for each in found) else 1


async def run_stories(asked: AskedStories, screen: Screen) -> int:
    """Post them, and follow them to their end; the exit code."""
    flow = to_workflow(asked.stories, asked.options)
    flow.spec()  # whatever can never run is refused before anything begins
    if asked.agents and not await asked.shop.worktrees.usable():
        folder = asked.shop.project
        raise BadInput("project", f"{folder} is no git repository with a commit: git init, commit")
    async with AsyncExitStack() as stack:
        board = await stack.enter_async_context(
            reach(asked.nats, asked.prefix, name="callboard caef run", tenant=asked.tenant)
        )
        if asked.agents:
            options = host_options(locate(asked.nats, asked.prefix), pool=SHARED_POOL)
            await stack.enter_async_context(working(agents_of(asked.shop), options))
        handle = await board.run(flow, key=asked.key)
        if not asked.agents:
            await say_if_nobody_offers(board, set(_STAGES), screen)
        if not asked.wait:
            return await follow_or_name(handle, screen, wait=False)
        return await _follow(handle, screen)


async def _follow(handle: Handle, screen: Screen) -> int:
    try:
        await follow_to_end(handle, screen)
    except asyncio.CancelledError:
        screen.note(f"the stories stay on the board: callboard status {handle.id}")
        raise
    try:
        verdicts = await handle.result()
    except TaskError as error:
        if screen.json:
            screen.document({"id": handle.id, "state": handle.state, "error": handle.error})
        else:
            screen.note(f"callboard: {error}")
        return 1
    show_verdicts(screen, handle.id, verdicts)
    return 0 if all(one["verdict"] == "passed" for one in verdicts) else 1
