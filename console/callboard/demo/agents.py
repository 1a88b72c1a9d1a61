"""The agents of `callboard demo`: one that plans, one for each specialist, one that joins.

A host that loads this module offers all of them. Each review names the process that did it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from callboard.demo import planning
from callboard.demo.findings import FileReview
from callboard.demo.join import Report, merge
from callboard.demo.specialists import SPECIALISTS, Specialist
from callboard_agents import Agent, agent

__all__ = [
    "JoinRequest",
    "PlanRequest",
    "join",
    "plan",
    "review_defects",
    "review_documentation",
    "review_imports",
    "review_secrets",
    "review_security",
    "review_structure",
]

_SLOTS = 8  # of each specialist in each process: the board's budget decides, not the places


class PlanRequest(msgspec.Struct, frozen=True):
    """The tree to review. limit: of files."""

    path: str
    limit: int = 200


class JoinRequest(msgspec.Struct, frozen=True):
    """Everything the specialists said, a list of reviews from each."""

    plan: planning.Plan
    reviews: list[list[FileReview]]


@agent("demo.plan", slots=1)
def plan(request: PlanRequest) -> planning.Plan:
    """Choose the files."""
    return planning.plan(Path(request.path), limit=request.limit)


@agent("demo.join", slots=1)
def join(request: JoinRequest) -> Report:
    """Merge all reviews into one report."""
    return merge((review for each in request.reviews for review in each), plan=request.plan)


def _agent_of(name: str) -> Agent[..., Any]:
    specialist: Specialist = SPECIALISTS[name]

    def review(file: planning.SourceFile) -> FileReview:
        found = specialist(planning.read(file), file.relative)
        return msgspec.structs.replace(found, process=f"{socket.gethostname()} {os.getpid()}")

    return agent(f"review.{name}", name=name, slots=_SLOTS)(review)


review_defects = _agent_of("defects")
review_documentation = _agent_of("documentation")
review_imports = _agent_of("imports")
review_secrets = _agent_of("secrets")
review_security = _agent_of("security")
review_structure = _agent_of("structure")
