"""Makes a plan into a workflow of the board, which its router runs.

A persona is a capability, a step a task, an artifact data on an edge. A condition or choice waits
for a signal of its name, unless it was answered before; answered with no, the step hands on
unchanged what it would have updated. A loop fans out over its items, so many at once as are
allowed, each as a workflow of its own; one over stories over epics, and over the stories of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callboard_broker.errors import BadInput
from callboard_broker.selections import Selection
from callboard_broker.workflow import Workflow
from callboard_integrations.bmad.persona import Persona, token
from callboard_integrations.bmad.plan import Plan, PlanStep
from callboard_integrations.bmad.stories import CHECKPOINTS
from callboard_integrations.bmad.workflow_file import is_about_stories

__all__ = ["DESK", "RunOptions", "to_workflow"]

DESK = "persona-desk"
"""The capability of what no persona does: lists of stories, statuses, pauses, and notes."""

_SPEC, _DONE = CHECKPOINTS
_PROMPTS = {
    _SPEC: "its story is written: read it. true: implement it; false: leave it",
    _DONE: "a story is done: look at it. true: go on; false: stop here",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is run.

    run: the name under which finished work is kept. at_once: items of a loop that are worked on at
    the same time; of stories, those of one epic. epics_at_once: epics likewise. answers: to
    conditions and choices, by name; `other_answers` to all others, None: somebody is asked. items:
    those of the loops. brief: what the work is about, for every persona. tokens: reserved for each
    step, and the most that it may answer with. budgets: further keys of the steps, such as
    `provider:openai`. attempts: of each step.
    """

    run: str
    at_once: int = 4
    epics_at_once: int = 1
    answers: Mapping[str, bool] = field(default_factory=dict)
    other_answers: bool | None = None
    items: Sequence[str] = ()
    brief: str = ""
    tokens: int | None = None
    budgets: Sequence[str] = ()
    attempts: int = 3


def to_workflow(plan: Plan, options: RunOptions) -> Workflow:
    """The workflow to post. Raises `BadInput` if nobody can do one of its steps."""
    if plan.unresolved:
        first = plan.unresolved[0]
        everyone = ", ".join(f"{one.id} ({one.who})" for one in plan.unresolved)
        raise BadInput(
            "assign",
            f"nobody is there for {everyone}; name somebody: --assign {first.who}=PERSONA",
        )
    if unknown := sorted(options.answers.keys() - plan.answerable):
        there = ", ".join(sorted(plan.answerable)) or "none"
        raise BadInput("answers", f"nothing is called {unknown[0]!r}; there are {there}")
    flow = Workflow(token(plan.workflow.id), inputs=_about(plan))
    builder = _Builder(plan, options, flow, {})
    loops = plan.loops
    for one in plan.steps:
        if not one.loop:
            builder.add(one)
        elif one.id == one.loop:
            builder.add_loop(one, loops[one.id])
    flow.returns(builder.outcome())
    return flow


def _about(plan: Plan) -> dict[str, str]:
    """What a tracker shows of a workflow."""
    return {"bmad_workflow_id": plan.workflow.id}


class _Builder:
    """One level of the workflow: the whole of it, or what is done for one item of a loop."""

    def __init__(
        self, plan: Plan, options: RunOptions, flow: Workflow, makers: dict[str, str]
    ) -> None:
        self.plan = plan
        self.options = options
        self.flow = flow
        self.makers = makers  # artifact -> capability of who made it
        self.ends: dict[str, list[Selection]] = {}
        self.loops: dict[str, Selection] = {}
        self.writers: dict[str, Selection] = {}
        self.outside: list[Any] = []
        self.item: Any = None
        self.decided: list[Any] = []  # about the item as a whole
        self.about = _about(plan)

    def add(self, one: PlanStep, *, after: Sequence[Selection] = ()) -> None:
        """Its gates, and its task; several where several personas revise what they made."""
        before = [*after, *(end for name in one.after for end in self.ends.get(name, ()))]
        decided = [
            *self.decided,
            *(
                self._decision(one, number, before)
                for number, gate in enumerate(one.gates)
                if gate.why != "checkpoint"
            ),
        ]
        waits = list({found.source: found for found in before}.values())
        if not one.personas:
            payload = {"decided": decided, "notes": one.step.notes}
            name = f"{DESK}.note"
            self.ends[one.id] = [self.flow.step(one.id, name, payload, after=waits)]
            return
        several = len(one.personas) > 1
        self.ends[one.id] = []
        for persona in one.personas:
            name = token(f"{one.id}-{persona.id}") if several else one.id
            updates = [
                artifact
                for artifact in one.updates
                if not several or self.makers.get(artifact) == persona.capability
            ]
            payload = self._payload(one, name, decided, updates)
            result = self._task(name, persona, payload, waits)
            self.ends[one.id].append(result)
            self._wrote(one, persona, result, updates)

    def _wrote(
        self, one: PlanStep, persona: Persona, result: Selection, updates: list[str]
    ) -> None:
        for artifact in one.creates:
            self.makers[artifact] = persona.capability
        for artifact in (*one.creates, *updates):
            self.writers[artifact] = result

    def _task(
        self, name: str, persona: Persona, payload: dict[str, Any], waits: list[Selection]
    ) -> Selection:
        options = self.options
        return self.flow.step(
            name,
            persona.capability,
            payload,
            after=waits,
            retry={"attempts": options.attempts, "delay": 2},
            budgets=list(options.budgets),
            units={} if options.tokens is None else {"tokens": options.tokens},
        )

    def _decision(self, one: PlanStep, number: int, before: list[Selection]) -> Any:
        gate = one.gates[number]
        answer = self.options.answers.get(gate.name, self.options.other_answers)
        if answer is not None:
            return answer
        notes = one.step.notes.strip().partition("\n")[0]
        return self.flow.signal(
            f"{one.id}-gate-{number}",
            gate.name,
            prompt=f"{gate.why}: {gate.name}? {notes}"[:500],
            after=before,
        )

    def _payload(
        self, one: PlanStep, name: str, decided: list[Any], updates: list[str]
    ) -> dict[str, Any]:
        sources = [
            self.loops[source] if source in self.loops else found["artifacts"]
            for source in one.sources
            for found in self.ends.get(source, ())
        ]
        step = one.step
        return {
            "run": self.options.run,
            "step": name,
            "item": self.item,
            "decided": decided,
            "action": step.action or one.id,
            "uses": step.uses,
            "notes": step.notes,
            "brief": self.options.brief,
            "creates": list(one.creates),
            "updates": updates,
            "reads": list(one.reads),
            "outside": list(one.outside),
            "sources": [*self.outside, *sources],
            "tokens": self.options.tokens,
        }

    def add_loop(self, first: PlanStep, steps: list[PlanStep]) -> None:
        """The list of items, and for each of them its steps as a workflow of its own."""
        inside = {one.id for one in steps}
        outer = [name for one in steps for name in one.after if name not in inside]
        waits = [end for name in dict.fromkeys(outer) for end in self.ends.get(name, ())]
        needed = dict.fromkeys(name for one in steps for name in one.sources if name not in inside)
        sources = [
            self.loops[name] if name in self.loops else found["artifacts"]
            for name in needed
            for found in self.ends.get(name, ())
        ]
        over = first.step.repeats
        items = self.flow.step(
            f"{first.id}-items",
            f"{DESK}.items",
            {
                "run": self.options.run,
                "over": over,
                "given": list(self.options.items),
                "sources": sources,
                "answers": self._checkpoint_answers(),
            },
            after=waits,
        )
        body = _Builder(self.plan, self.options, Workflow(first.id), dict(self.makers))
        body.item = body.flow.inputs["item"]
        body.outside = [body.flow.inputs["sources"]]
        if is_about_stories(over):
            body.add_story(steps)
        else:
            for one in steps:
                body.add(one)
        written = list({found.source: found for found in body.writers.values()}.values())
        workers = [end for one in steps if one.personas for end in body.ends[one.id]]
        body.flow.returns(
            {
                "item": body.item,
                "artifacts": [one["artifacts"] for one in written],
                "held": [{"branch": one["branch"], "files": one["files"]} for one in workers],
            }
        )
        if is_about_stories(over):
            result = self._over_epics(body.flow, sources, items["waves"])
        else:
            result = self.flow.sub(
                first.id,
                body.flow,
                {"item": self.flow.item, "sources": sources, **self.about},
                each=items["items"],
                at_once=self.options.at_once,
            )
        for one in steps:
            self.ends[one.id] = [result]
            self.loops[one.id] = result
            for artifact in (*one.creates, *one.updates):
                self.writers[artifact] = result

    def _over_epics(self, story: Workflow, sources: list[Selection], waves: Selection) -> Selection:
        """Wave after wave, in each its epics, and in each epic its stories."""
        epic, wave = Workflow("epic"), Workflow("wave")
        of_story = {name: epic.item[name] for name in ("item", "asks", "decided")}
        stories = epic.sub(
            "story",
            story,
            {**of_story, "sources": epic.inputs["sources"], **self.about},
            each=epic.inputs["stories"],
            at_once=self.options.at_once,
        )
        epic.returns(stories)
        # a wave that fails does not keep the next from its turn: each looks for a pause before it
        pause = {"run": self.options.run, "story": wave.inputs["story"]}
        begun = wave.step("begin", f"{DESK}.pause", pause)
        epics = wave.sub(
            "epic",
            epic,
            {
                "stories": wave.item["stories"],
                "sources": wave.inputs["sources"],
                **self.about,
            },
            each=wave.inputs["epics"],
            after=[begun],
            at_once=self.options.epics_at_once,
        )
        decided = _checkpoint(wave, _DONE, [epics])
        wave.step("pause", f"{DESK}.pause", {**pause, "decided": decided}, after=[epics])
        wave.returns(epics)
        of_wave = {name: self.flow.item[name] for name in ("epics", "story", "asks", "decided")}
        return self.flow.sub(
            story.name,
            wave,
            {**of_wave, "sources": sources, **self.about},
            each=waves,
            at_once=1,
        )

    def _checkpoint_answers(self) -> dict[str, bool]:
        given = self.options
        said = {name: given.answers.get(name, given.other_answers) for name in CHECKPOINTS}
        return {name: answer for name, answer in said.items() if answer is not None}

    def add_story(self, steps: list[PlanStep]) -> None:
        """With the story's status: it begins, is in review, and is done after a review only."""
        worker = self.plan.worker(steps)
        later: list[PlanStep] = []
        for one in steps:
            if one is worker:
                before = [end for name in one.after for end in self.ends.get(name, ())]
                self.decided = _checkpoint(self.flow, _SPEC, before)
                began = self._status("in-progress", before)
                self.add(one, after=[began])
                self._status(
                    "review", self.ends[one.id], [end["done"] for end in self.ends[one.id]]
                )
            else:
                self.add(one)
                if worker.id in self.ends and one.personas:
                    later.append(one)
        reviews = [one for one in later if "review" in f"{one.id} {one.step.action}".lower()]
        if later:
            last = [*self.ends[steps[-1].id], Selection("status-review")]
            ends = [end for one in reviews or later for end in self.ends[one.id]]
            self._status("done", last, [found["done"] for found in ends])

    def _status(
        self, status: str, after: Sequence[Selection], evidence: list[Selection] | None = None
    ) -> Selection:
        payload = {
            "item": self.item,
            "status": status,
            "decided": self.decided,
            "evidence": evidence,
        }
        return self.flow.step(f"status-{status}", f"{DESK}.status", payload, after=after)

    def outcome(self) -> dict[str, Any]:
        """Every artifact as it was written last."""
        written = {found.source: found for found in self.writers.values()}
        loops = {found.source for found in self.loops.values()}
        return {
            "artifacts": [
                found if name in loops else found["artifacts"] for name, found in written.items()
            ]
        }


def _checkpoint(flow: Workflow, name: str, after: Sequence[Selection]) -> list[Any]:
    """Ask somebody where it is wanted; what was said, before or now, as `is_yes` reads it."""
    said = flow.signal(
        name.replace("_", "-"), name, prompt=_PROMPTS[name], each=flow.inputs["asks"], after=after
    )
    return [flow.inputs["decided"], said]
