"""The demo's workflow: a plan, a fan-out over its files for each specialist, and a join.

No step waits for anything but what it names: a specialist that is done with its files does not
wait for the others, and the join starts with the last review.
"""

from __future__ import annotations

from pathlib import Path

from callboard.demo.findings import FileReview
from callboard.demo.join import Report, merge
from callboard.demo.planning import plan, read
from callboard.demo.specialists import SPECIALISTS
from callboard_broker.workflow import Workflow

__all__ = ["JOIN", "PLAN", "review_alone", "review_workflow"]

PLAN, JOIN = "plan", "report"

_TIMEOUT_SECONDS = 120.0


def review_workflow(root: Path, *, limit: int = 200) -> Workflow:
    """The workflow that reviews `root`; its result is a `Report`."""
    flow = Workflow("review")
    files = flow.step(PLAN, "demo.plan", {"path": str(root), "limit": limit})
    reviews = [
        flow.step(name, f"review.{name}", flow.item, each=files["files"], timeout=_TIMEOUT_SECONDS)
        for name in SPECIALISTS
    ]
    flow.returns(flow.step(JOIN, "demo.join", {"plan": files, "reviews": reviews}))
    return flow


def review_alone(root: Path, *, limit: int = 200) -> Report:
    """The same review in this process, without a board: what the board's must equal."""
    chosen = plan(root, limit=limit)
    reviews: list[FileReview] = []
    for file in chosen.files:
        source = read(file)
        reviews += [review(source, file.relative) for review in SPECIALISTS.values()]
    return merge(reviews, plan=chosen)
