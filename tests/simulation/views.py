"""What a workflow must come to, worked out from the journal alone and without Callboard's code.

A `FlowView` is told what became of each element, and looks at all of its steps again, until nothing
changes: which begin, which never will, what is no longer needed. Nothing is counted on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.simulation.specs import FlowSpec, Ref

__all__ = ["ODD", "FlowView", "NotThere"]

ODD = float("inf")
"""A result that msgspec lets pass unread and refuses when it is needed: `1e999`."""


class NotThere(Exception):
    """A reference names something that does not exist, or that is of another kind."""


@dataclass(slots=True, kw_only=True, eq=False)
class FlowView:
    """How far a workflow is. results: values with the sequence at which each came.

    fate: of steps that never run. begun: at which sequence. released: nobody needs what is left.
    ending: why it is halted. held: inner workflows that wait for a place. undos: elements to be
    undone, the next one last; undoing: the present one. outer, place: the element of another
    workflow that it is.
    """

    spec: FlowSpec
    id: str
    tenant: str
    inputs: Any
    expires_at: float | None = None
    outer: FlowView | None = None
    place: tuple[str, int] = ("", 0)
    results: dict[str, dict[int, tuple[Any, int]]] = field(default_factory=dict)
    failures: dict[str, set[int]] = field(default_factory=dict)
    skipped: dict[str, set[int]] = field(default_factory=dict)
    fate: dict[str, str] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    ending: str | None = None
    spoilt: bool = False
    paused: bool = False
    undos: list[tuple[str, int]] | None = None
    undoing: tuple[str, int] | None = None
    undone: int = 0
    held: list[tuple[str, int]] = field(default_factory=list)
    undo_done: list[tuple[str, int]] = field(default_factory=list)
    signals: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.spec.steps:
            self.results[name], self.failures[name], self.skipped[name] = {}, set(), set()

    # -- what has become of it

    def ended(self, name: str) -> set[int]:
        return self.results[name].keys() | self.failures[name] | self.skipped[name]

    def over(self, name: str) -> bool:
        """Whether nothing more of the step can come."""
        return name in self.fate or self.total.get(name) == len(self.ended(name))

    def complete(self, name: str) -> bool:
        return name not in self.fate and self.total.get(name) == len(self.results[name])

    @property
    def failing(self) -> bool:
        """Whether it can no longer succeed."""
        return self.spoilt or self.ending is not None

    @property
    def is_paused(self) -> bool:
        return self.paused or (self.outer is not None and self.outer.is_paused)

    def unexpanded(self) -> set[str]:
        """Fan-outs whose list is there and not yet counted."""
        if self.ending is not None:
            return set()
        steps = (name for name in self.begun if self.spec.steps[name].each is not None)
        own = (name for name in steps if self.spec.follows(name) is None)
        return {name for name in own if name not in self.total and name not in self.fate}

    def existing(self) -> set[tuple[str, int]]:
        """The elements that are to run: begun and not ended."""
        found: set[tuple[str, int]] = set()
        for name in self.begun.keys() - self.fate.keys():
            source = self.spec.follows(name)
            known = range(self.total.get(name, 0)) if source is None else self.results[source]
            found |= {(name, index) for index in known} - {(name, n) for n in self.ended(name)}
        return found

    def advance(self, seq: int) -> list[str]:
        """Look at every step until nothing changes. Returns steps to be cancelled."""
        unneeded = list[str]()
        choosing = [n for n, s in self.spec.steps.items() if s.join not in ("all", "best_effort")]
        before = None
        while self.ending is None and before != (before := self._standing()):
            for name in self.spec.steps:  # what goes item by item hears at once
                self._follow(name)
            looks = (*choosing, *self.spec.steps)  # a join that is satisfied saves the rest
            for name in looks if before == self._standing() else ():
                self._look_at(name, seq, unneeded)
                if before != self._standing():
                    break
            for name in self.spec.steps:
                failed = self.failures[name] or self.fate.get(name) == "failed"
                self.spoilt = self.spoilt or bool(failed and not self.spec.tolerated(name))
        return unneeded

    def _standing(self) -> tuple[Any, ...]:
        ended = sum(len(self.ended(name)) for name in self.spec.steps)
        return ended, len(self.begun), len(self.fate), len(self.total), len(self.released)

    def _follow(self, name: str) -> None:
        source = self.spec.follows(name)
        if source is not None and name not in self.fate:
            if source in self.total:
                self.total[name] = self.total[source]
            for absent, mine in ((self.failures, self.failures), (self.skipped, self.skipped)):
                mine[name] |= absent[source] - self.ended(name)
            if source in self.fate:
                self.fate[name] = self.fate[source]

    def _look_at(self, name: str, seq: int, unneeded: list[str]) -> None:
        self._follow(name)
        if name in self.begun or name in self.released or self.over(name):
            return
        strict = self.spec.strict(name)
        barred = self._bars(strict)
        if barred:
            self.fate[name] = barred
        elif all(self.complete(need) for need in strict):
            self._judge(name, sorted(self.spec.needs(name) - strict), seq, unneeded)

    def _bars(self, strict: set[str]) -> str:
        if any(self.failures[need] or self.fate.get(need) == "failed" for need in strict):
            return "failed"
        if any(self.skipped[need] or need in self.fate for need in strict):
            return "skipped"
        return ""

    def _judge(self, name: str, chosen: list[str], seq: int, unneeded: list[str]) -> None:
        join = self.spec.steps[name].join
        if isinstance(join, str) and join != "any":
            if all(self.over(source) for source in chosen):
                self._begin(name, seq)
            return
        wanted = join if isinstance(join, int) else 1
        won = sum(len(self.results[source]) for source in chosen)
        known = all(source in self.total or source in self.fate for source in chosen)
        alive = [source for source in chosen if source not in self.fate]
        left = sum(self.total.get(s, 0) - len(self.failures[s] | self.skipped[s]) for s in alive)
        left += sum(len(self.results[source]) for source in chosen if source in self.fate)
        if won >= wanted:
            self._begin(name, seq)
            self._release(chosen, unneeded)
        elif all(self.over(source) for source in chosen) or (known and left < wanted):
            failed = any(self.failures[s] or self.fate.get(s) == "failed" for s in chosen)
            self.fate[name] = "failed" if failed else "skipped"

    def _begin(self, name: str, seq: int) -> None:
        self.begun[name] = seq
        if self.spec.steps[name].each is None:
            self.total[name] = 1

    def _release(self, chosen: list[str], unneeded: list[str]) -> None:
        """What the join has no more use for, and what only fed that."""
        left = list(chosen)
        while left:
            name = left.pop()
            if name in self.released or self.over(name) or not self._useless(name):
                continue
            self.released.add(name)
            if name in self.begun and name not in self.unexpanded():
                unneeded.append(name)
            else:
                self.begun.pop(name, None)
                self.fate[name] = "skipped"
            left += sorted(self.spec.needs(name) | ({self.spec.follows(name) or ""} - {""}))

    def _useless(self, name: str) -> bool:
        feeds = self.spec.feeds(name)
        return (
            bool(feeds)
            and not self.spec.kept(name)
            and all(
                fed in self.released
                or self.over(fed)
                or (
                    fed in self.begun
                    and name in self.spec.needs(fed) - self.spec.strict(fed)
                    and self.spec.follows(fed) != name
                )
                for fed in feeds
            )
        )

    def may_begin(self, name: str) -> bool:
        """Whether its join is satisfied by what is there now."""
        strict, join = self.spec.strict(name), self.spec.steps[name].join
        chosen = self.spec.needs(name) - strict
        if not all(self.complete(need) for need in strict):
            return False
        if join == "best_effort":
            return all(self.over(source) or source in self.released for source in chosen)
        won = sum(len(self.results[source]) for source in chosen)
        wanted = 1 if join == "any" else join
        return isinstance(wanted, str) or won >= wanted

    def to_undo(self) -> list[tuple[str, int]]:
        """Elements that have succeeded and can be undone; the last one to finish stands last."""
        order = list(self.spec.steps)
        found = [
            (seq, order.index(name), index, name)
            for name, step in self.spec.steps.items()
            if step.undo is not None
            for index, (_, seq) in self.results[name].items()
        ]
        return [(name, index) for _, _, index, name in sorted(found)]

    # -- values

    def items(self, name: str) -> list[Any]:
        """What a step fans out over. Raises `NotThere`."""
        each = self.spec.steps[name].each
        found = None if each is None else self._value(each, 0)
        if not isinstance(found, list):
            raise NotThere(each)
        return found

    def payload(self, name: str, index: int) -> dict[str, Any]:
        """The payload of one element. Raises `NotThere`."""
        step = self.spec.steps[name]
        found = dict(step.constants)
        for key, ref in step.refs.items():
            found[key] = self._seen_by(name, index, ref)
        return found

    def holds(self, name: str, index: int) -> bool:
        """Whether the condition of an element holds. Raises `NotThere`."""
        step = self.spec.steps[name]
        when = step.when
        listed = step.each is not None and self.spec.follows(name) is None
        if when is None or (listed and when[0][0] != "item" and name in self.total):
            return True  # of a list as a whole it was asked before there were any elements
        value = self._seen_by(name, index, when[0])
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotThere(when)
        return value > when[1]

    def output(self) -> dict[str, Any]:
        """The result of the workflow that has succeeded. Raises `NotThere`."""
        if self.spec.output is not None:
            return {key: self._value(ref, 0) for key, ref in self.spec.output.items()}
        return {n: self._whole(n, 0) for n in self.spec.steps if not self.spec.feeds(n)}

    def _seen_by(self, name: str, index: int, ref: Ref) -> Any:
        """A join that chooses sees only what was there when it was satisfied."""
        step = self.spec.steps[name]
        if ref[0] != "item":
            chooses = step.join not in ("all", "best_effort")
            return self._value(ref, self.begun[name] if chooses else 0)
        source = self.spec.follows(name)
        found = self.items(name)[index] if source is None else self.results[source][index][0]
        if found == ODD:
            raise NotThere(ref)
        return found

    def _whole(self, name: str, until: int) -> Any:
        known = self.results[name].items()
        found = {index: value for index, (value, seq) in known if not until or seq <= until}
        if ODD in found.values():
            raise NotThere(name)
        if self.spec.steps[name].each is None:
            return found.get(0)
        if name in self.fate or (until and not found):
            return None
        return [found.get(index) for index in range(self.total.get(name, 0))]

    def _value(self, ref: Ref, until: int) -> Any:
        source, path = ref
        value = self.inputs if source == "inputs" else self._whole(source, until)
        parts = path.split(".") if path else []
        if source != "inputs" and self._is_absent(source, parts, value):
            return None
        for part in parts:
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (LookupError, ValueError, TypeError) as error:
                raise NotThere(ref) from error
        return value

    def _is_absent(self, source: str, parts: list[str], value: Any) -> bool:
        if self.spec.steps[source].each is None or value is None:
            return value is None
        if not parts or not parts[0].isdecimal() or int(parts[0]) >= len(value):
            return False
        return value[int(parts[0])] is None
