"""Workflows of the simulation, and what they must come to: worked out without Callboard's code.

A `FlowSpec` is drawn by the seed and posted as JSON; a `FlowView` follows it through the journal
and says at every point which tasks must exist, with which payload, and how the workflow must end.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CAPABILITIES", "ODD", "FlowSpec", "FlowView", "NotThere", "StepSpec", "draw_flow"]

CAPABILITIES = ("plan", "work.fast", "join")

ODD = float("inf")
"""A result that msgspec lets pass unread and refuses when it is needed: `1e999`."""

Ref = tuple[str, str]


class NotThere(Exception):
    """A reference names something that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A step. constants and refs make up the payload; each: what it fans out over."""

    name: str
    capability: str
    constants: dict[str, Any]
    refs: dict[str, Ref]
    after: tuple[str, ...] = ()
    each: Ref | None = None

    def document(self) -> dict[str, Any]:
        payload: dict[str, Any] = dict(self.constants)
        for key, (source, path) in self.refs.items():
            payload[key] = {"from": source, "path": path} if path else {"from": source}
        found: dict[str, Any] = {"id": self.name, "capability": self.capability}
        found |= {"payload": payload, "after": list(self.after)}
        if self.each is not None:
            found["each"] = {"from": self.each[0], "path": self.each[1]}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSpec:
    """A workflow. output: its refs, or None for the results of the last steps."""

    steps: dict[str, StepSpec]
    inputs: dict[str, Any]
    output: dict[str, Ref] | None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": "drawn",
            "steps": [step.document() for step in self.steps.values()],
            "inputs": self.inputs,
        }
        if self.output is not None:
            found["output"] = {key: {"from": s, "path": p} for key, (s, p) in self.output.items()}
        return found

    def follows(self, name: str) -> str | None:
        """The fan-out that this step follows item by item."""
        each = self.steps[name].each
        if each is None or each[1] or each[0] == "inputs":
            return None
        return each[0] if self.steps[each[0]].each is not None else None

    def needs(self, name: str) -> set[str]:
        """Steps that must be complete before this one."""
        step = self.steps[name]
        found = {source for source, _ in step.refs.values()} | set(step.after)
        if step.each is not None and self.follows(name) is None:
            found.add(step.each[0])
        return found - {"inputs", "item"}


def draw_flow(rng: random.Random) -> FlowSpec:
    """A random workflow of two to seven steps; some of them fail on purpose."""
    steps: dict[str, StepSpec] = {}
    inputs: dict[str, Any] = {"n": rng.randint(0, 99), "items": list(range(rng.randint(0, 5)))}
    if rng.random() < 0.15:
        inputs["pad"] = "y" * 5000
    for number in range(rng.randint(2, 7)):
        name = f"s{number}"
        constants: dict[str, Any] = {"c": number}
        if rng.random() < 0.5:
            constants["list"] = rng.randint(0, 4)
        if rng.random() < 0.12:
            constants["pad"] = rng.choice((4090, 5000, 9000))
        if rng.random() < 0.03:
            constants[rng.choice(("fail", "odd"))] = True
        refs: dict[str, Ref] = {"i": ("inputs", "n")}
        for source in rng.sample(sorted(steps), min(len(steps), rng.choice((0, 1, 1, 2)))):
            refs[source] = (source, _path(rng, steps[source]))
        each = _each(rng, steps) if rng.random() < 0.5 else None
        if each is not None and rng.random() < 0.9:
            refs["x"] = ("item", "")
        after = tuple(rng.sample(sorted(steps), 1)) if steps and rng.random() < 0.2 else ()
        steps[name] = StepSpec(
            name=name,
            capability=rng.choice(CAPABILITIES),
            constants=constants,
            refs=refs,
            after=after,
            each=each,
        )
    output = None
    if rng.random() < 0.4:
        source = rng.choice(sorted(steps))
        output = {"out": (source, _path(rng, steps[source])), "n": ("inputs", "n")}
    return FlowSpec(steps=steps, inputs=inputs, output=output)


def _path(rng: random.Random, step: StepSpec) -> str:
    if rng.random() < 0.02:
        return "nowhere.at.all"
    if step.each is not None:
        return rng.choice(("", "", "", "0.v"))
    return rng.choice(("", "v"))


def _each(rng: random.Random, steps: dict[str, StepSpec]) -> Ref:
    if rng.random() < 0.04 and steps:
        return rng.choice(sorted(steps)), "v"
    fans = [name for name, step in steps.items() if step.each is not None]
    lists = [n for n, s in steps.items() if s.each is None and "list" in s.constants]
    choice = rng.random()
    if fans and choice < 0.5:
        return rng.choice(fans), ""
    if lists and choice < 0.8:
        return rng.choice(lists), "list"
    return "inputs", "items"


@dataclass(slots=True)
class FlowView:
    """How far a workflow is, by the journal alone. failed: steps of which an element failed."""

    spec: FlowSpec
    seq: int
    results: dict[str, dict[int, Any]] = field(default_factory=dict)
    fanned: dict[str, int] = field(default_factory=dict)
    ended: set[tuple[str, int]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def total(self, name: str) -> int | None:
        """How many elements a step has, once that is settled."""
        if not all(self.complete(need) for need in self.spec.needs(name)):
            return None
        if self.spec.steps[name].each is None:
            return 1
        source = self.spec.follows(name)
        return self.fanned.get(name) if source is None else self.total(source)

    def complete(self, name: str) -> bool:
        return self.total(name) == len(self.results.get(name, {}))

    def _existing(self, name: str) -> set[tuple[str, int]]:
        if not all(self.complete(need) for need in self.spec.needs(name)):
            return set()
        source = self.spec.follows(name)
        if source is not None:
            return {(name, index) for index in self.results.get(source, {})}
        return {(name, index) for index in range(self.total(name) or 0)}

    def live(self) -> set[tuple[str, int]]:
        """The tasks that must exist now, since their own needs are met and they have not ended."""
        found: set[tuple[str, int]] = set()
        for name in self.spec.steps:
            found |= self._existing(name)
        return found - self.ended

    def unexpanded(self) -> set[str]:
        """Fan-outs whose list is there and not yet counted."""
        return {
            name
            for name, step in self.spec.steps.items()
            if step.each is not None
            and self.spec.follows(name) is None
            and name not in self.fanned
            and name not in self.failed
            and all(self.complete(need) for need in self.spec.needs(name))
        }

    def items(self, name: str) -> list[Any]:
        """What a step fans out over. Raises `NotThere`."""
        each = self.spec.steps[name].each
        if each is None:
            raise AssertionError(name)
        source = self.spec.follows(name)
        if source is not None:
            return [self.results[source].get(n) for n in range(max(self.results[source]) + 1)]
        found = self._value(each)
        if not isinstance(found, list):
            raise NotThere(each)
        return found

    def payload(self, name: str, index: int) -> dict[str, Any]:
        """The payload of one task. Raises `NotThere`."""
        step = self.spec.steps[name]
        found = dict(step.constants)
        for key, ref in step.refs.items():
            found[key] = self.items(name)[index] if ref[0] == "item" else self._value(ref)
            if found[key] == ODD:
                raise NotThere(ref)
        return found

    def output(self) -> dict[str, Any]:
        """The result of the workflow that has succeeded. Raises `NotThere`."""
        if self.spec.output is not None:
            return {key: self._value(ref) for key, ref in self.spec.output.items()}
        used = {need for name in self.spec.steps for need in self.spec.needs(name)}
        used |= {self.spec.follows(name) or "" for name in self.spec.steps}
        return {name: self._whole(name) for name in self.spec.steps if name not in used}

    def _whole(self, name: str) -> Any:
        found = self.results.get(name, {})
        if ODD in found.values():
            raise NotThere(name)
        if self.spec.steps[name].each is None:
            return found[0]
        return [found[index] for index in range(len(found))]

    def _value(self, ref: Ref) -> Any:
        source, path = ref
        value = self.spec.inputs if source == "inputs" else self._whole(source)
        for part in path.split(".") if path else ():
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (LookupError, ValueError, TypeError) as error:
                raise NotThere(ref) from error
        return value
