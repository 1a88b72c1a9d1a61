"""Agents of the tracker's rows: one drafts, the other one reviews what was drafted."""

from __future__ import annotations

from typing import TypedDict

from callboard import agent


class Row(TypedDict, total=False):
    """What a pulled row brings: its own columns, and its metadata."""

    task_id: str
    title: str
    description: str
    acceptance_criteria: list[str]
    bmad_story_id: str
    priority: str
    metadata: dict[str, object]


@agent("docs.draft")
async def draft(row: Row) -> str:
    """Write the first lines."""
    return f"# {row['title']}\n"


@agent("docs.review")
async def review(row: Row) -> list[str]:
    """Say which criteria are met: all of them."""
    return row.get("acceptance_criteria", [])
