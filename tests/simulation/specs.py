"""Workflows as the simulation posts them: drawn by the seed, posted as JSON.

Every kind of step, join and condition occurs; some fail on purpose, for good or for a while.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.fitting import draw_needs

__all__ = ["CAPABILITIES", "SIGNALS", "FlowSpec", "Ref", "StepSpec", "draw_flow", "draw_terms"]

CAPABILITIES = ("plan", "work", "work.fast", "join")
SIGNALS = ("go", "halt")

Ref = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A step. kind: `task`, `gate`, `signal` or `flow`. constants, refs: what its payload is of.

    each: what it fans out over. join: `all`, `any`, a number, `best_effort`. when: (ref, bound):
    it runs if the value is above the bound. terms: as in the post. undo: capability and constants
    of what undoes it.
    """

    name: str
    kind: str
    capability: str
    constants: dict[str, Any]
    refs: dict[str, Ref]
    after: tuple[str, ...] = ()
    each: Ref | None = None
    at_once: int | None = None
    join: str | int = "all"
    when: tuple[Ref, float] | None = None
    terms: dict[str, Any]
    priority: int = 5
    signal: str = ""
    flow: FlowSpec | None = None
    undo: tuple[str, dict[str, Any]] | None = None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"id": self.name, "after": list(self.after), **self.terms}
        found |= {"join": self.join, "priority": self.priority}
        payload = dict(self.constants)
        for key, ref in self.refs.items():
            payload[key] = _ref(ref)
        found["payload"] = payload
        if self.kind == "task":
            found["capability"] = self.capability
        elif self.kind == "gate":
            found["gate"] = {}
        elif self.kind == "signal":
            found["gate"] = {"kind": "signal", "signal": self.signal}
        elif self.flow is not None:
            inside = self.flow.document()
            found["flow"] = {key: inside[key] for key in inside if key in _INSIDE}
        if self.each is not None:
            found["each"] = _ref(self.each)
        if self.at_once is not None:
            found["at_once"] = self.at_once
        if self.when is not None:
            found["when"] = {"value": _ref(self.when[0]), "above": self.when[1]}
        if self.undo is not None:
            found["compensate"] = {"capability": self.undo[0], "payload": self.undo[1]}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSpec:
    """A workflow. output: its refs, or None for the results of the last steps."""

    steps: dict[str, StepSpec]
    inputs: dict[str, Any]
    output: dict[str, Ref] | None
    at_once: int | None = None
    timeout: float | None = None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": "drawn",
            "steps": [step.document() for step in self.steps.values()],
            "inputs": self.inputs,
        }
        if self.output is not None:
            found["output"] = {key: _ref(ref) for key, ref in self.output.items()}
        if self.at_once is not None:
            found["at_once"] = self.at_once
        if self.timeout is not None:
            found["timeout"] = self.timeout
        return found

    def follows(self, name: str) -> str | None:
        """The fan-out that this step follows item by item."""
        each = self.steps[name].each
        if each is None or each[1] or each[0] == "inputs":
            return None
        return each[0] if self.steps[each[0]].each is not None else None

    def needs(self, name: str) -> set[str]:
        """Steps that it waits for, but for the one that it follows."""
        step = self.steps[name]
        found = {source for source, _ in step.refs.values()} | set(step.after)
        if step.when is not None:
            found.add(step.when[0][0])
        return (found | self._listed(name)) - {"inputs", "item"}

    def strict(self, name: str) -> set[str]:
        """Those of them that must succeed as a whole."""
        if self.steps[name].join == "all":
            return self.needs(name)
        return self._listed(name) - {"inputs"}

    def _listed(self, name: str) -> set[str]:
        each = self.steps[name].each
        return {each[0]} if each is not None and self.follows(name) is None else set()

    def feeds(self, name: str) -> list[str]:
        """Steps that wait for it."""
        return [fed for fed in self.steps if name in self.needs(fed) or self.follows(fed) == name]

    def tolerated(self, name: str) -> bool:
        """Whether its failure leaves the workflow standing."""
        feeds = self.feeds(name)
        return bool(feeds) and all(
            self.steps[fed].join != "all" and name not in self.strict(fed) for fed in feeds
        )

    def kept(self, name: str) -> bool:
        """Whether the output names it."""
        return self.output is not None and any(ref[0] == name for ref in self.output.values())


_INSIDE = ("steps", "output", "at_once")


def _ref(ref: Ref) -> dict[str, str]:
    return {"from": ref[0], "path": ref[1]} if ref[1] else {"from": ref[0]}


def draw_terms(rng: random.Random, steps: Sequence[str] = ()) -> dict[str, Any]:
    """On what terms a task runs: mostly on none. steps: see `draw_needs`."""
    terms: dict[str, Any] = {}
    if rng.random() < 0.35:
        terms["retry"] = {
            "attempts": rng.randint(2, 5),
            "delay": rng.choice((0, 0.2, 1.0, 3.0)),
            "factor": rng.choice((1, 2)),
            "max_delay": rng.choice((0.5, 2.0, 10.0)),
        }
        if rng.random() < 0.2:
            terms["retry"]["not_on"] = ["Boom"]
        if rng.random() < 0.3:
            terms["retry"]["elsewhere"] = True
    if rng.random() < 0.1:
        names = ("queue", "total", "start", "heartbeat")
        terms["timeouts"] = {
            name: rng.choice((0.5, 3.0, 10.0, 40.0))
            for name in rng.sample(names, rng.randint(1, 2))
        }
    if rng.random() < 0.12:
        terms["budgets"] = rng.sample(("openai", "gpu"), rng.randint(1, 2))
    if rng.random() < 0.3:
        terms["units"] = {"tokens": rng.choice((0, 10, 60))}
    if rng.random() < 0.2:
        terms["needs"] = draw_needs(rng, steps)
    return terms


def draw_flow(rng: random.Random, *, inner: bool = False) -> FlowSpec:
    """A random workflow of two to seven steps."""
    steps: dict[str, StepSpec] = {}
    inputs: dict[str, Any] = {"n": rng.randint(0, 99), "items": list(range(rng.randint(0, 5)))}
    if rng.random() < 0.1:
        inputs["pad"] = "y" * 5000
    for number in range(rng.randint(1, 3) if inner else rng.randint(2, 7)):
        name = f"s{number}"
        steps[name] = _draw_step(rng, name, steps, inner=inner)
    output = None
    if rng.random() < 0.4:
        source = rng.choice(sorted(steps))
        output = {"out": (source, _path(rng, steps[source])), "n": ("inputs", "n")}
    return FlowSpec(
        steps=steps,
        inputs=inputs,
        output=output,
        at_once=rng.randint(1, 3) if rng.random() < 0.15 else None,
        timeout=None if inner or rng.random() < 0.94 else rng.choice((2.0, 15.0)),
    )


def _draw_step(
    rng: random.Random, name: str, steps: dict[str, StepSpec], *, inner: bool
) -> StepSpec:
    kinds, odds = ("task", "gate", "signal", "flow"), (0.88, 0.04, 0.03, 0 if inner else 0.05)
    kind = rng.choices(kinds, odds)[0]
    constants: dict[str, Any] = {"c": name}
    if rng.random() < 0.5:
        constants["list"] = rng.randint(0, 4)
    if rng.random() < 0.08:
        constants["pad"] = rng.choice((4090, 5000, 9000))
    if rng.random() < 0.1:
        constants |= rng.choice(({"fail": True}, {"odd": True}, {"flaky": 1}, {"flaky": 2}))
    if rng.random() < 0.05:
        constants["spawn"] = rng.randint(1, 2)
    refs: dict[str, Ref] = {"n": ("inputs", "n")}
    for source in rng.sample(sorted(steps), min(len(steps), rng.choice((0, 1, 1, 2, 3)))):
        refs[source] = (source, _path(rng, steps[source]))
    each = None
    if kind in ("task", "flow") and rng.random() < 0.45:
        each = _each(rng, steps)
        if rng.random() < 0.9:
            refs["x"] = ("item", "")
    if kind == "flow":
        constants["items"] = list(range(rng.randint(0, 3)))
    after = tuple(rng.sample(sorted(steps), 1)) if steps and rng.random() < 0.2 else ()
    listed = {each[0]} if each is not None else set()
    chosen = sorted(({ref[0] for ref in refs.values()} | set(after)) & steps.keys() - listed)
    odds_of_when = 0.2 if kind == "task" else 0.5
    return StepSpec(
        name=name,
        kind=kind,
        capability=rng.choice(CAPABILITIES),
        constants=constants,
        refs=refs,
        after=after,
        each=each,
        at_once=rng.randint(1, 2) if each is not None and rng.random() < 0.2 else None,
        join=_join(rng, chosen, steps),
        when=_when(rng, each, chosen, steps) if rng.random() < odds_of_when else None,
        terms=draw_terms(rng, sorted(steps)) if kind == "task" else {},
        priority=rng.randint(0, 9),
        signal=rng.choice(SIGNALS),
        flow=draw_flow(rng, inner=True) if kind == "flow" else None,
        undo=_undo(rng, name) if rng.random() < 0.3 else None,
    )


def _undo(rng: random.Random, name: str) -> tuple[str, dict[str, Any]]:
    constants = {"undo": name} | ({"fail": True} if rng.random() < 0.1 else {})
    return rng.choice(CAPABILITIES), constants


def _join(rng: random.Random, chosen: list[str], steps: dict[str, StepSpec]) -> str | int:
    if not chosen or rng.random() < 0.55:
        return "all"
    many = any(steps[name].each is not None for name in chosen)
    return rng.choice(("any", "best_effort", rng.randint(1, 3 if many else len(chosen))))


def _when(
    rng: random.Random, each: Ref | None, chosen: list[str], steps: dict[str, StepSpec]
) -> tuple[Ref, float]:
    if each == ("inputs", "items") and rng.random() < 0.5:
        return ("item", ""), 1
    singles = [name for name in chosen if steps[name].each is None and steps[name].kind == "task"]
    if singles and rng.random() < 0.7:
        return (rng.choice(singles), "v"), 50_000
    return ("inputs", "n"), 40


def _path(rng: random.Random, step: StepSpec) -> str:
    if rng.random() < 0.02:
        return "nowhere.at.all"
    if step.each is not None:
        return rng.choice(("", "", "", "0")) if step.kind == "flow" else rng.choice(("", "", "0.v"))
    return "" if step.kind != "task" else rng.choice(("", "v"))


def _each(rng: random.Random, steps: dict[str, StepSpec]) -> Ref:
    if rng.random() < 0.04 and steps:
        return rng.choice(sorted(steps)), "v"
    fans = [name for name, step in steps.items() if step.each is not None]
    lists = [
        name
        for name, step in steps.items()
        if step.each is None and step.kind == "task" and "list" in step.constants
    ]
    choice = rng.random()
    if fans and choice < 0.5:
        return rng.choice(fans), ""
    if lists and choice < 0.8:
        return rng.choice(lists), "list"
    return "inputs", "items"
