"""Makes the personas of a roster into agents of a host: one capability each, one runner for all.

A task that is repeated finds what the earlier attempt finished and does not ask the model again.
The tokens that were used settle what the task had reserved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callboard_agents.agent import Agent, agent
from callboard_agents.context import Context
from callboard_agents.failures import GiveUp
from callboard_broker.errors import BadInput
from callboard_integrations.bmad.assignment import (
    Assignment,
    Done,
    ItemsWanted,
    Noted,
    Paused,
    StatusWanted,
    gathered,
    is_yes,
)
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.flow import DESK
from callboard_integrations.bmad.persona import Persona
from callboard_integrations.bmad.project_files import inside, is_file_name, write_whole
from callboard_integrations.bmad.prompts import prompt_for, taken_apart
from callboard_integrations.bmad.records import Record, Records, item_id
from callboard_integrations.bmad.references import References
from callboard_integrations.bmad.runner import Answer, Request, Runner
from callboard_integrations.bmad.source_text import read_text
from callboard_integrations.bmad.status_files import StatusFile, find_status_file
from callboard_integrations.bmad.stories import find_items, waves_of
from callboard_integrations.bmad.workflow_file import is_about_stories
from callboard_integrations.bmad.worktrees import Worktree, Worktrees

__all__ = ["Workshop", "agents_of", "by_name"]


@dataclass(slots=True)
class Workshop:
    """A project's folder, and who does the work in it.

    documents: where artifacts are written, below the project or a worktree. slots: tasks of each
    persona at once in this process. timeout: seconds that one may take.
    """

    project: Path
    runner: Runner
    documents: str = "docs"
    slots: int = 16
    timeout: float = 1800.0
    records: Records = field(init=False)
    worktrees: Worktrees = field(init=False)

    def __post_init__(self) -> None:
        self.project = self.project.resolve()
        self.records = Records(self.project)
        self.worktrees = Worktrees(self.project)


def agents_of(workshop: Workshop, personas: Sequence[Persona]) -> list[Agent[..., Any]]:
    """The agents of all `personas`, and those of the desk. Raises `BadInput`.

    Two personas of one capability would be one queue: the second is refused by name.
    """
    known: dict[str, Persona] = {}
    for persona in personas:
        other = known.setdefault(persona.capability, persona)
        if other is not persona:
            raise BadInput(persona.path, f"{other.path} has the same name, {persona.capability}")
    return [*(_agent(workshop, persona) for persona in known.values()), *_desk(workshop)]


def by_name(agents: Sequence[Agent[..., Any]]) -> dict[str, Agent[..., Any]]:
    """The agents by names of Python: `globals().update(by_name(...))` lets a module offer them."""
    return {one.capability.replace(".", "__").replace("-", "_"): one for one in agents}


def _agent(workshop: Workshop, persona: Persona) -> Agent[..., Any]:
    references = References(workshop.project, persona)

    async def work(assignment: Assignment, ctx: Context) -> Done:
        return await _work(workshop, references, assignment, ctx)

    declared = agent(
        persona.capability,
        name=persona.id[:120],
        slots=workshop.slots,
        timeout=workshop.timeout,
        labels={"generation": persona.generation},
    )
    return declared(work)


def _desk(workshop: Workshop) -> list[Agent[..., Any]]:
    """What needs no persona."""
    project = workshop.project

    @agent(f"{DESK}.note")
    async def note(noted: Noted) -> Done:
        return Done(done=is_yes(noted.decided))

    @agent(f"{DESK}.items")
    def items(wanted: ItemsWanted, ctx: Context) -> dict[str, Any]:
        found = find_items(project, wanted.over, wanted.given, gathered(wanted.sources))
        if is_about_stories(wanted.over):
            workshop.records.pause(wanted.run, ctx.workflow, "")
            return {"waves": waves_of(found, wanted.answers)}
        return {"items": found}

    @agent(f"{DESK}.pause")
    def pause(paused: Paused, ctx: Context) -> None:
        records = workshop.records
        if paused.decided is None:
            before = records.paused_after(paused.run, ctx.workflow)
            if before not in ("", paused.story):
                raise GiveUp(f"nobody has said yes to the done_checkpoint of story {before}")
            if paused.story:
                records.pause(paused.run, ctx.workflow, paused.story)
        elif not is_yes(paused.decided):
            raise GiveUp(
                f"stopped at the done_checkpoint of story {paused.story}; to go on, run the same "
                "again"
            )
        elif paused.story:
            records.pause(paused.run, ctx.workflow, "")

    @agent(f"{DESK}.status", slots=1)
    def status(wanted: StatusWanted) -> dict[str, str]:
        file = StatusFile(find_status_file(project), project)
        item = wanted.item
        key = str(item["id"] if isinstance(item, dict) and "id" in item else item)
        unproven = wanted.evidence is not None and True not in wanted.evidence
        if unproven or not is_yes(wanted.decided):
            return {"item": key, "status": file.read().get(key, "unchanged")}
        return {"item": key, "status": file.raise_to(key, wanted.status)}

    return [note, items, pause, status]


async def _work(
    workshop: Workshop, references: References, assignment: Assignment, ctx: Context
) -> Done:
    persona = references.persona
    given = gathered(assignment.sources)
    if not is_yes(assignment.decided):
        kept = {name: given[name] for name in assignment.updates if name in given}
        return Done(artifacts=kept, done=False)
    tree = None
    if assignment.item is not None:
        tree = await workshop.worktrees.of(assignment.run, assignment.item)
    folder = tree.folder if tree else workshop.project
    given |= await asyncio.to_thread(_outside, workshop, assignment.outside)
    own, left_out = await asyncio.to_thread(references.named_by, assignment)
    prompt = prompt_for(assignment, persona, given, own=own, left_out=left_out)
    key = Records.key(persona.raw, prompt)
    place = workshop.records.place(assignment.run, assignment.step, assignment.item)
    known = await asyncio.to_thread(workshop.records.recall, place, key, folder)
    if known is not None and tree is not None and not await tree.has(known.commit):
        known = None  # its branch is gone, or was reset
    if known is not None:
        _settle(ctx, 0)
        return Done(
            artifacts=known.artifacts,
            done=True,
            reused=True,
            files=list(known.files),
            branch=known.branch,
            tokens=0,
        )
    ctx.progress({"asks": workshop.runner.name, "step": assignment.step})
    request = Request(system=persona.raw, prompt=prompt, folder=folder, tokens=assignment.tokens)
    answer = await workshop.runner.run(request)
    _settle(ctx, answer.tokens)
    record = await _kept(workshop, assignment, answer, (folder, tree), key)
    await asyncio.to_thread(workshop.records.keep, place, record, folder)
    return Done(
        artifacts=record.artifacts,
        done=True,
        files=list(record.files),
        branch=record.branch,
        tokens=answer.tokens,
    )


def _settle(ctx: Context, tokens: int | None) -> None:
    """Say what was used; where the runner does not know, what was reserved stays charged."""
    if tokens is not None:
        ctx.settle(tokens=float(tokens))


async def _kept(
    workshop: Workshop,
    assignment: Assignment,
    answer: Answer,
    where: tuple[Path, Worktree | None],
    key: str,
) -> Record:
    """Write the answer's artifacts and files, commit them in a worktree, and record them."""
    folder, tree = where
    names = [*assignment.creates, *assignment.updates]
    artifacts, further = taken_apart(answer.text, names)
    if not names:
        artifacts = {f"{assignment.step}-findings.md": answer.text}
    written = {
        _path_of(workshop, assignment, name): name for name in artifacts if is_file_name(name)
    }
    if assignment.item is None:  # documents; only what is done for an item writes code
        under = f"{workshop.documents}/"
        written |= {under + path.removeprefix(under): path for path in further}
    else:
        written |= {path: path for path in further}
    texts = artifacts | further
    for path, name in written.items():
        await asyncio.to_thread(write_whole, inside(folder, path), texts[name])
    commit = ""
    if tree is not None:
        commit = await tree.commit(f"{assignment.step}: {item_id(assignment.item)}")
    return Record(
        key=key,
        artifacts=artifacts,
        files=written,
        branch=tree.branch if tree else "",
        commit=commit,
    )


def _path_of(workshop: Workshop, assignment: Assignment, name: str) -> str:
    """`docs/prd.md`; of a story `docs/stories/1-1.story.md`, so that no two write one file."""
    if "/" in name:
        return name
    if assignment.item is None:
        return f"{workshop.documents}/{name}"
    return f"{workshop.documents}/stories/{item_id(assignment.item)}.{name}"


def _outside(workshop: Workshop, names: list[str]) -> dict[str, str]:
    """What no step makes and the project has: `docs/prd.md`, or `prd.md` at its top."""
    found = {}
    for name in names:
        for place in (f"{workshop.documents}/{name}", name):
            if not is_file_name(name):
                continue
            path = inside(workshop.project, place)
            text = read_text(path, Findings(place), inside=workshop.project)
            if path.is_file() and text is not None:
                found[name] = text
                break
    return found
