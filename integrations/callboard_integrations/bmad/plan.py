"""Turns a sequence of steps into a graph before anything runs: what waits for what, who does it.

`requires` waits for whoever wrote that artifact last, `updates` likewise and becomes its last
writer; a step that requires nothing, or what nobody makes, is a barrier: it waits for all before
it, and is given what these have made. Conditions and choices become gates. A repeated step and
those that follow it are one loop, over whose items the work fans out. Where `stories.yaml` wants
a person to see a story, that is a gate of the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.crosscheck import ANYONE
from callboard_integrations.bmad.persona import Persona, token
from callboard_integrations.bmad.roster import Roster
from callboard_integrations.bmad.stories import CHECKPOINTS, find_checkpoints
from callboard_integrations.bmad.workflow_file import (
    Artifact,
    WorkflowFile,
    WorkflowStep,
    is_about_stories,
)

__all__ = ["Gate", "Plan", "PlanStep", "make_plan"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What somebody decides before a step: its name is the signal's. why: `condition`, `optional`,
    `choice` (of what may be done before), `route`, or `checkpoint` (of stories that want one).
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step of the graph.

    after: the steps that it waits for. sources: those of them whose artifacts it is given. creates,
    updates: artifacts that it hands on. personas: who does it; several, each for its own artifacts,
    or nobody: a marker. unresolved: agents that were not found. loop: the step that begins the loop
    it is in. is_barrier: it waits for all before it. outside: artifacts that no step makes.
    """

    id: str
    step: WorkflowStep
    after: tuple[str, ...]
    sources: tuple[str, ...]
    creates: tuple[str, ...]
    updates: tuple[str, ...]
    reads: tuple[str, ...]
    personas: tuple[Persona, ...] = ()
    unresolved: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    loop: str = ""
    is_barrier: bool = False
    outside: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """Its agents as a person reads them."""
        return "/".join(self.step.agents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sequence as a graph; the steps in an order in which each comes after what it waits for.

    checkpoints: the stories that want one now, by its name.
    """

    workflow: WorkflowFile
    sequence: str
    steps: tuple[PlanStep, ...]
    levels: Mapping[str, int] = field(default_factory=dict)
    checkpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Steps of the longest way through it."""
        return max(self.levels.values(), default=0)

    @property
    def width(self) -> int:
        """Most steps that can run at once, were each as long as any other; a loop counts once."""
        counts: dict[int, int] = {}
        for level in self.levels.values():
            counts[level] = counts.get(level, 0) + 1
        return max(counts.values(), default=0)

    @property
    def barriers(self) -> list[PlanStep]:
        return [one for one in self.steps if one.is_barrier]

    @property
    def gates(self) -> list[str]:
        """The names of what is to be decided, each once."""
        named = [gate.name for one in self.steps for gate in one.gates]
        return list(dict.fromkeys([*named, *self.checkpoints]))

    @property
    def answerable(self) -> set[str]:
        """What may be answered before: also checkpoints that no story wants yet."""
        return {*self.gates, *(CHECKPOINTS if self.story_loops else ())}

    @property
    def story_loops(self) -> list[list[PlanStep]]:
        """Those of `loops` that go over stories."""
        return [steps for steps in self.loops.values() if is_about_stories(steps[0].step.repeats)]

    def worker(self, steps: Sequence[PlanStep]) -> PlanStep:
        """The step of a story loop that implements the story: the first that nobody is asked about
        after the story was written.
        """
        unasked = [
            one
            for one in steps[1:]
            if one.personas and all(gate.why == "checkpoint" for gate in one.gates)
        ]
        if unasked:
            return unasked[0]
        if self.workflow.dialect == "order":
            return steps[0]  # one skill that plans and implements
        makes = [one for one in steps if one.creates]
        return makes[1] if len(makes) > 1 else makes[0] if makes else steps[0]

    @property
    def unresolved(self) -> list[PlanStep]:
        """Steps that nobody can do."""
        return [one for one in self.steps if one.step.agents and not one.personas]

    @property
    def loops(self) -> dict[str, list[PlanStep]]:
        """The steps of each loop by the id of its first."""
        found: dict[str, list[PlanStep]] = {}
        for one in self.steps:
            if one.loop:
                found.setdefault(one.loop, []).append(one)
        return found


def make_plan(
    roster: Roster,
    workflow: WorkflowFile,
    sequence: str | None = None,
    *,
    assign: Mapping[str, str] | None = None,
) -> Plan:
    """The graph of one sequence; the first, if none is named.

    assign: who does a step, by its id or by the agent's name in the file. Raises `BadInput`.
    """
    names = [one.name for one in workflow.sequences]
    if sequence is not None and sequence not in names:
        raise BadInput("sequence", f"{sequence!r} is not there; there are {', '.join(names)}")
    chosen = workflow.sequences[0 if sequence is None else names.index(sequence)]
    planner = _Planner(roster, workflow, assign or {})
    named = (name for step in chosen.steps for name in step.agents)
    planner.anyone = next((one for name in named if (one := planner.find(name))), None)
    for step in chosen.steps:
        planner.add(step)
    steps = tuple(planner.steps)
    plan = Plan(workflow=workflow, sequence=chosen.name, steps=steps, levels=_levels(steps))
    return _with_checkpoints(plan, roster)


def _with_checkpoints(plan: Plan, roster: Roster) -> Plan:
    found = find_checkpoints(roster.project) if plan.story_loops else {}
    if not found:
        return plan
    workers = [plan.worker(steps).id for steps in plan.story_loops]
    name = CHECKPOINTS[0]
    gate = (Gate(name, "checkpoint"),) if name in found else ()
    steps = tuple(
        replace(one, gates=(*one.gates, *gate)) if one.id in workers else one for one in plan.steps
    )
    return replace(plan, steps=steps, checkpoints=found)


class _Planner:
    """The steps so far, and who wrote each artifact last."""

    def __init__(self, roster: Roster, workflow: WorkflowFile, assign: Mapping[str, str]) -> None:
        self.roster = roster
        self.pack = workflow.pack
        self.assign = assign
        self.steps: list[PlanStep] = []
        self.writers: dict[str, str] = {}
        self.makers: dict[str, Persona] = {}
        self.loop = ""
        self.used: set[str] = set()
        self.anyone: Persona | None = None

    def find(self, name: str) -> Persona | None:
        return self.roster.persona(name, self.pack)

    def add(self, step: WorkflowStep) -> None:
        if step.routes:
            self._add_routes(step)
            return
        before = [self._choice(step, name) for name in step.optional_steps]
        self._add(step, self._gates(step), before)

    def _gates(self, step: WorkflowStep) -> tuple[Gate, ...]:
        if step.condition:
            return (Gate(_signal(step.condition), "condition"),)
        optional = step.is_optional or any(one.is_optional for one in step.creates)
        return (Gate(_signal(f"{step.name}_wanted"), "optional"),) if optional else ()

    def _choice(self, step: WorkflowStep, name: str) -> str:
        """Something that may be done before a step, by the same agent; all of them at once."""
        aside = WorkflowStep(
            name=name,
            agents=step.agents,
            action=name,
            creates=(Artifact(name),),
            requires=step.requires,
            repeats=step.repeats,
            follows=step.follows,
        )
        return self._add(aside, (Gate(_signal(name), "choice"),), [], is_aside=True)

    def _add_routes(self, step: WorkflowStep) -> None:
        """Each route is a step of its own behind a question of its own, beside the others."""
        for name, route in step.routes:
            if route.agents:
                inside = WorkflowStep(
                    name=name,
                    agents=route.agents,
                    action=route.uses or route.action or name,
                    creates=route.creates or (Artifact(name),),
                    uses=route.uses,
                    notes=route.notes,
                )
                self._add(inside, (Gate(_signal(f"route_{name}"), "route"),), [], is_aside=True)

    def _add(
        self,
        step: WorkflowStep,
        gates: tuple[Gate, ...],
        before: Sequence[str],
        *,
        is_aside: bool = False,
    ) -> str:
        own = self._id(step)
        self.loop = own if step.repeats else self.loop if step.follows else ""
        if is_aside and step.repeats:
            self.loop = ""
        sources, outside = self._sources(step)
        personas, unresolved = self._who(step, own)
        # an aside waits for what its step waits for, and not for the asides beside it
        earlier = [one.id for one in self.steps if one.id not in before]
        if is_aside:
            earlier = [one for one in earlier if one not in self._asides()]
        is_barrier = not step.requires or bool(outside)
        after = [*(earlier if is_barrier else sources), *before]
        self.steps.append(
            PlanStep(
                id=own,
                step=step,
                after=tuple(dict.fromkeys(after)),
                sources=tuple(dict.fromkeys([*sources, *before])),
                creates=tuple(one.name for one in step.creates),
                updates=self._updated(step),
                reads=tuple(self._read(step)),
                personas=personas,
                unresolved=unresolved,
                gates=gates,
                loop=self.loop,
                is_barrier=is_barrier and bool(earlier),
                outside=tuple(outside),
            )
        )
        for name in (*self.steps[-1].creates, *self.steps[-1].updates):
            self.writers[name] = own
        for name in self.steps[-1].creates:
            if personas:
                self.makers[name] = personas[0]
        return own

    def _asides(self) -> set[str]:
        """The steps at the end that stand beside each other before the same question."""
        found: set[str] = set()
        for one in reversed(self.steps):
            if not one.gates or one.gates[0].why not in ("choice", "route"):
                break
            found.add(one.id)
        return found

    def _id(self, step: WorkflowStep) -> str:
        name = token(step.name if not step.agents else step.name or step.agents[0])
        own, number = name, 1
        while own in self.used or own in ("inputs", "item", "undo"):
            number += 1
            own = f"{name}-{number}"
        self.used.add(own)
        return own

    def _sources(self, step: WorkflowStep) -> tuple[list[str], list[str]]:
        """The last writers of what it needs, and what nobody has written."""
        found: list[str] = []
        outside: list[str] = []
        for artifact in (*step.requires, *step.updates, *step.validates):
            if artifact.is_everything:
                found += self.writers.values()
                continue
            writers = [self.writers[name] for name in artifact.names if name in self.writers]
            found += writers
            if not writers and artifact in step.requires:
                outside.append(artifact.name)
        if outside or not (step.requires or step.updates or step.validates):
            found += self.writers.values()
        return list(dict.fromkeys(found)), outside

    def _read(self, step: WorkflowStep) -> list[str]:
        found: list[str] = []
        for artifact in (*step.requires, *step.updates, *step.validates):
            found += self.writers if artifact.is_everything else artifact.names
        return list(dict.fromkeys(found))

    def _updated(self, step: WorkflowStep) -> tuple[str, ...]:
        found: list[str] = []
        for artifact in step.updates:
            found += self.writers if artifact.is_everything else (artifact.name,)
        return tuple(dict.fromkeys(found))

    def _who(self, step: WorkflowStep, own: str) -> tuple[tuple[Persona, ...], tuple[str, ...]]:
        assigned = self.assign.get(own) or self.assign.get("/".join(step.agents))
        names = (assigned,) if assigned else step.agents
        if names and names[0].lower() in ANYONE:
            makers = {one.capability: one for one in self.makers.values()}
            if not makers and self.anyone is not None:  # nothing is made yet: whoever is there
                return (self.anyone,), ()
            return tuple(makers.values()), () if makers else names
        found = [self.find(name) for name in names]
        known = [one for one in found if one is not None]
        missing = tuple(name for name, one in zip(names, found, strict=True) if one is None)
        return tuple(known[:1]), missing


def _signal(text: str) -> str:
    return token(text.replace(" ", "_"))


def _levels(steps: Sequence[PlanStep]) -> dict[str, int]:
    """How many steps the longest way to each has, itself included."""
    found: dict[str, int] = {}
    for one in steps:
        found[one.id] = 1 + max((found[name] for name in one.after), default=0)
    return found
