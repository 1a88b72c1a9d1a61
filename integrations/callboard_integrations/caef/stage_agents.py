"""The stages of a story as agents of a host: plan, implement, test, judge.

Each is a task of its own and knows nothing but its payload. An iteration begins by putting the
story's worktree back to the commit that the journal names, under a lock; so a stage that is
repeated because its host died makes the same change to the same files, once.
"""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from callboard_agents.agent import Agent, agent
from callboard_agents.context import Context
from callboard_agents.failures import GiveUp
from callboard_broker.errors import BadInput
from callboard_integrations.bmad.persona import token
from callboard_integrations.bmad.project_files import KEPT, inside, write_whole
from callboard_integrations.bmad.records import Record, Records
from callboard_integrations.bmad.runner import Runner
from callboard_integrations.bmad.worktrees import Worktree, Worktrees
from callboard_integrations.caef.author import edits_in, request_for
from callboard_integrations.caef.edits import read_edits
from callboard_integrations.caef.judging import judge
from callboard_integrations.caef.records import (
    Change,
    Edit,
    ImplementWanted,
    Judged,
    Planned,
    PlanWanted,
    Standing,
    TestWanted,
    VerdictsWanted,
)
from callboard_integrations.caef.settings import CaefSettings, load_settings
from callboard_integrations.caef.story_file import read_story
from callboard_integrations.caef.testing import testing_agent
from callboard_integrations.caef.trio import implement, plan_for

__all__ = ["StoryShop", "agents_of", "edits_for"]


@dataclass(slots=True)
class StoryShop:
    """A project, the top of a git repository, and who writes its code; None: only edits files.

    slots: stories that one host plans, changes or judges at once.
    """

    project: Path
    author: Runner | None = None
    slots: int = 16
    settings: CaefSettings = field(init=False)
    records: Records = field(init=False)
    worktrees: Worktrees = field(init=False)

    def __post_init__(self) -> None:
        self.project = self.project.resolve()
        self.settings = load_settings(self.project)
        self.records = Records(self.project)
        self.worktrees = Worktrees(self.project)


class _Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Which run has a worktree, and the last iteration that has begun in it."""

    began: int
    iteration: int


def agents_of(shop: StoryShop) -> list[Agent[..., Any]]:
    """The agents of one project. Raises `BadInput` if its interpreter is not there."""
    trees = shop.project / KEPT / "worktrees"
    trees.mkdir(parents=True, exist_ok=True)
    return [*_stages(shop), testing_agent(shop.settings, shop.project, trees)]


def _stages(shop: StoryShop) -> list[Agent[..., Any]]:
    @agent("caef.plan", name="PlanAgent", slots=shop.slots)
    async def plan(wanted: PlanWanted) -> Planned:
        standing = wanted.standing
        if not standing.base:
            if not await shop.worktrees.usable():
                raise BadInput("project", f"{shop.project} is no git repository with a commit")
            began, base = time.time_ns(), await shop.worktrees.head()
            standing = msgspec.structs.replace(standing, base=base, commit=base, began=began)
        found = await asyncio.to_thread(
            plan_for,
            wanted.profile,
            shop.settings,
            inside(shop.project, wanted.story),
            shop.project,
            failures=standing.failures,
        )
        return msgspec.structs.replace(found, standing=standing)

    @agent("caef.implement", name="ImplementAgent", slots=shop.slots, timeout=2 * 86_400.0)
    async def implement_(wanted: ImplementWanted, ctx: Context) -> Change:
        return await _implement(shop, wanted, ctx)

    @agent("caef.judge", name="JudgeAgent", slots=shop.slots)
    async def judge_(given: Judged) -> Standing:
        return judge(given, shop.settings.profile(given.profile))

    @agent("caef.verdicts", name="VerdictsAgent")
    async def verdicts(wanted: VerdictsWanted) -> list[dict[str, Any]]:
        why = "its workflow has failed: callboard status says where"
        failed = Standing(verdict="failed", reason=why)
        ended = wanted.ended or [None] * len(wanted.stories)
        return [
            {"id": story["id"], "story": story["story"], **msgspec.to_builtins(one or failed)}
            for story, one in zip(wanted.stories, ended, strict=True)
        ]

    return [plan, implement_, judge_, verdicts]


async def _implement(shop: StoryShop, wanted: ImplementWanted, ctx: Context) -> Change:
    begun = time.monotonic()
    profile = shop.settings.profile(wanted.planned.profile)
    standing = wanted.planned.standing
    if not standing.base:
        raise BadInput("planned", "has no commit to begin at: it is not what a plan stage gave")
    item = wanted.item + (f"_again-{standing.generation}" if standing.generation else "")
    tree = await shop.worktrees.of(wanted.run, item, standing.base)
    if tree is None:
        raise BadInput("project", f"{shop.project} is no git repository with a commit")
    kept = shop.project / KEPT / "caef" / token(wanted.run) / token(item)
    async with _claimed(kept, tree, standing):
        tree_before = await tree.tree()
    blank = Change(
        status="none", branch=tree.branch, tree_before=tree_before, lint_gate=wanted.lint_gate
    )
    limit = asyncio.timeout(profile.iteration_seconds)
    try:
        async with limit:
            edits, tokens = await edits_for(shop, wanted, tree.folder, ctx)
    except TimeoutError:
        if not limit.expired():
            raise  # of a connection: another attempt may do better
        why = f"the author did not answer within {profile.iteration_seconds:g} s"
        return msgspec.structs.replace(blank, status="timed_out", reason=why)
    except BadInput as error:
        return msgspec.structs.replace(blank, status="refused", reason=str(error))
    if not edits:
        why = "there are no edits for this iteration"
        return msgspec.structs.replace(blank, reason=why, tokens=tokens)
    async with _claimed(kept, tree, standing):
        backups = kept / f"backups-{standing.iteration + 1}"
        status, results, saved = await asyncio.to_thread(
            implement, tree.folder, edits, backups, apply=True
        )
        message = f"{wanted.item}: iteration {standing.iteration + 1}"
        commit = await tree.commit(message, ignored=True)  # tested is what is committed
        after = await tree.tree()
    left = profile.iteration_seconds - (time.monotonic() - begun)
    done = status != "refused"
    return Change(
        status="refused" if not done else "applied" if left > 0 else "timed_out",
        results=[msgspec.structs.replace(one, diff="") for one in results],
        backups=saved,
        reason="" if done else "an edit does not fit, so that none was made",
        branch=tree.branch,
        commit=commit,
        tree=after if done else "",
        tree_before=tree_before,
        tokens=tokens,
        lint_gate=wanted.lint_gate,
        test=_test(shop, wanted.planned, tree.folder, left) if done and left > 0 else None,
    )


async def edits_for(
    shop: StoryShop, wanted: ImplementWanted, folder: Path, ctx: Context | None = None
) -> tuple[list[Edit], int]:
    """The edits of this iteration, from its file or from the author, and the tokens that they cost.

    folder: the project as it is now. An answer is kept: the author is asked once. Raises
    `BadInput` if there is neither, or the answer is no list of edits; `RunnerFailed`.
    """
    iteration = wanted.planned.standing.iteration
    if wanted.edits:
        name = wanted.edits[iteration] if iteration < len(wanted.edits) else ""
        found = await asyncio.to_thread(read_edits, inside(shop.project, name)) if name else None
        return found or [], 0
    if shop.author is None:
        raise BadInput("edits", "there is no edits file, and nobody to ask for edits")
    story = await asyncio.to_thread(
        read_story, inside(shop.project, wanted.story), inside=shop.project
    )
    request = await asyncio.to_thread(request_for, story, wanted.planned, folder, wanted.tokens)
    key = Records.key(request.system, request.prompt)
    place = shop.records.place(wanted.run, f"edits-{iteration + 1}", wanted.item)
    known = shop.records.recall(place, key, folder) if ctx is not None else None
    if known is not None and ctx is not None:
        ctx.settle(tokens=0.0)
        return edits_in(known.artifacts["answer"]), 0
    answer = await shop.author.run(request)
    if ctx is not None:
        if answer.tokens is not None:
            ctx.settle(tokens=float(answer.tokens))
        record = Record(key=key, artifacts={"answer": answer.text})
        await asyncio.to_thread(shop.records.keep, place, record, folder)
    return edits_in(answer.text), answer.tokens or 0


def _test(shop: StoryShop, planned: Planned, folder: Path, left: float) -> TestWanted:
    """The tests that the plan names and that are there by now; without any, the whole suite."""
    profile = shop.settings.profile(planned.profile)
    return TestWanted(
        folder=str(folder),
        paths=[path for path in planned.verify_paths if _is_there(folder, path)],
        linter=shop.settings.linter,
        seconds=min(profile.test_seconds, left),
        lint_seconds=profile.lint_seconds,
        max_failures=profile.max_failures,
    )


def _is_there(folder: Path, path: str) -> bool:
    """Whether it is in the project: it comes from a story or a traceback, and may be any text."""
    try:
        return inside(folder, path).exists()
    except BadInput:
        return False


@asynccontextmanager
async def _claimed(kept: Path, tree: Worktree, standing: Standing) -> AsyncIterator[None]:
    """Hold the worktree, as it was when this iteration began; against every process of the machine.

    Raises `BadInput` if it is another run's, and `GiveUp` if a later iteration has begun: then this
    attempt was taken for lost.
    """
    await asyncio.to_thread(kept.mkdir, parents=True, exist_ok=True)
    with (kept / ".lock").open("a") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        place = kept / "mark.json"
        known = msgspec.json.decode(place.read_bytes(), type=_Mark) if place.exists() else None
        if known is None and not await tree.is_at(standing.base):
            raise BadInput("run", f"there is a branch {tree.branch}: give the run another name")
        if known is not None and known.began != standing.began:
            raise BadInput("run", f"{tree.branch} is another run's: give this one another name")
        if known is not None and known.iteration > standing.iteration:
            raise GiveUp(f"iteration {known.iteration + 1} of {tree.branch} has begun")
        mark = _Mark(began=standing.began, iteration=standing.iteration)
        await asyncio.to_thread(write_whole, place, msgspec.json.encode(mark))
        await tree.reset(standing.commit)
        yield
