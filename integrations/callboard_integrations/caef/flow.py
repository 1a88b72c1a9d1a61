"""Makes stories into a workflow of the board: rounds of Plan, Implement, Test and Judge for each.

The rounds are steps of the router's, as many as the profile allows; those that a verdict makes
needless are skipped. So no task waits for another one and holds a place of the budget meanwhile. A
story that fails does not touch the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from callboard_broker.errors import BadInput
from callboard_broker.workflow import StepOptions, Workflow
from callboard_integrations.bmad.persona import token
from callboard_integrations.caef.settings import Profile
from callboard_integrations.caef.testing import TEST

__all__ = ["StoryOptions", "to_workflow"]

_SPARE_SECONDS = 60.0
_MAX_STORIES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryOptions:
    """How stories are run.

    run: the name of their branches, `callboard/RUN/STORY`. profile: of the settings, by this name.
    at_once: stories at the same time. lint_gate: whether the linter must be content. tokens: of an
    answer, and reserved for it. budgets: of the author, such as `provider:openai`. attempts: to
    reach it.
    """

    run: str
    profile_name: str
    profile: Profile
    at_once: int = 4
    lint_gate: bool = True
    tokens: int | None = None
    budgets: Sequence[str] = ()
    attempts: int = 3


def to_workflow(stories: Sequence[dict[str, Any]], options: StoryOptions) -> Workflow:
    """The workflow to post. stories: `{"id", "story", "edits"}`: a short name, the file and perhaps
    edits files, relative to the project. Its result: a `Standing` for each. Raises `BadInput`.
    """
    if not 1 <= len(stories) <= _MAX_STORIES:
        raise BadInput("stories", f"{len(stories)} stories; 1 to {_MAX_STORIES} make a run")
    names = [str(one["id"]) for one in stories]
    for name in names:
        if token(name) != name or names.count(name) > 1:
            raise BadInput("stories", f"{name!r:.80} is no short name, or that of two")
    flow = Workflow("caef", inputs={"stories": [{"edits": [], **one} for one in stories]})
    ended = flow.sub(
        "story", _rounds(options), flow.item, each=flow.inputs["stories"], at_once=options.at_once
    )
    told = {"stories": flow.inputs["stories"], "ended": ended}
    flow.returns(flow.step("verdicts", "caef.verdicts", told, join="best_effort"))
    return flow


def _rounds(options: StoryOptions) -> Workflow:
    """What is done for one story, whose inputs are its entry in the list."""
    profile = options.profile
    flow = Workflow("story", inputs={"id": "", "story": "", "edits": []})
    asking: StepOptions = {
        "retry": {"attempts": options.attempts, "delay": 2},
        "timeout": profile.iteration_seconds + _SPARE_SECONDS,
        "budgets": list(options.budgets),
        "units": {} if options.tokens is None else {"tokens": options.tokens},
    }
    testing: StepOptions = {"timeout": profile.test_seconds + profile.lint_seconds + _SPARE_SECONDS}
    standing: Any = {}
    for number in range(1, profile.iterations + 1):
        more: StepOptions = {} if number == 1 else {"when": standing["verdict"].equals("")}
        asked = {"story": flow.inputs["story"], "profile": options.profile_name}
        plan = flow.step(f"plan-{number}", "caef.plan", {**asked, "standing": standing}, **more)
        wanted = {
            "run": options.run,
            "item": flow.inputs["id"],
            "story": flow.inputs["story"],
            "planned": plan,
            "edits": flow.inputs["edits"],
            "lint_gate": options.lint_gate,
            "tokens": options.tokens,
        }
        change = flow.step(f"implement-{number}", "caef.implement", wanted, **asking)
        testing["when"] = change["status"].equals("applied")
        report = flow.step(f"test-{number}", TEST, change["test"], **testing)
        given = {"profile": options.profile_name, "standing": standing}
        given |= {"planned": plan, "change": change, "report": report}
        standing = flow.step(f"judge-{number}", "caef.judge", given, join="best_effort")
    flow.returns(standing)
    return flow
