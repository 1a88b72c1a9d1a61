"""Shows what the first iteration of a story would change, and changes nothing: no file, no branch.

Needs no board. Edits are worked out against the files as they are in the project now.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.project_files import inside
from callboard_integrations.bmad.runner import RunnerFailed
from callboard_integrations.caef.edits import worked_out
from callboard_integrations.caef.records import EditResult, ImplementWanted, Planned
from callboard_integrations.caef.stage_agents import StoryShop, edits_for
from callboard_integrations.caef.trio import plan_for

__all__ = ["Rehearsal", "rehearse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """refused: why there are no edits; empty: `results` says what each would do."""

    story: str
    planned: Planned
    results: list[EditResult]
    refused: str = ""

    @property
    def fits(self) -> bool:
        """Whether there are edits, and every one of them could be made."""
        return bool(self.results) and all(one.status != "refused" for one in self.results)


async def rehearse(
    shop: StoryShop, story: str, edits: list[str], profile: str, *, tokens: int | None = None
) -> Rehearsal:
    """Plan a story, and work its edits out. tokens: of the author's answer, at most.

    Raises `BadInput` if there is no such story.
    """
    path = inside(shop.project, story)
    planned = await asyncio.to_thread(plan_for, profile, shop.settings, path, shop.project)
    wanted = ImplementWanted(
        run="", item="", story=story, planned=planned, edits=edits, tokens=tokens
    )
    try:
        found, _ = await edits_for(shop, wanted, shop.project)
        results, _ = await asyncio.to_thread(worked_out, shop.project, found, apply=False)
    except (BadInput, RunnerFailed) as error:
        return Rehearsal(story=story, planned=planned, results=[], refused=str(error))
    refused = "" if results else "there are no edits in its edits file"
    return Rehearsal(story=story, planned=planned, results=results, refused=refused)
