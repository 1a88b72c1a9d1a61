"""What a posted workflow depends on: checked once at the door and once by the router.

`chart` refuses, by name, what can never run: duplicate or unknown steps, cycles, references out of
place, joins that ask for more than there is, absurd sizes. There is no barrier between levels: a
step waits for what it names and for nothing else. A fan-out over another fan-out's whole list
(`each: {"from": "other"}`, no path) goes item by item: element i starts when element i of the
other step is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from callboard_broker.conditions import check_condition
from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.references import INPUTS, ITEM, find
from callboard_broker.subjects import check_capability
from callboard_broker.wire import FlowRun, Ref, Step

__all__ = ["MAX_NESTING", "UNDO", "Graph", "Node", "chart", "downstream", "upstream"]

MAX_NESTING = 8
UNDO = "undo"
"""The step name under which what compensates others runs."""

_RESERVED = frozenset({INPUTS, ITEM})
_MAX_CHAIN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step and what it waits for.

    needs: steps that it names, but for `follows`: the fan-out that it follows item by item.
    strict: those of them that must succeed as a whole; the others are counted by `join`.
    feeds: steps that name this one. tolerated: each of them (there is one) copes with its failure.
    kept: the workflow's output names it, so that it is of use beside its feeds.
    each_of_item: its condition needs the element. graph: of the workflow inside the step.
    """

    step: Step
    needs: frozenset[str]
    follows: str | None
    feeds: tuple[str, ...]
    strict: frozenset[str]
    tolerated: bool
    kept: bool
    each_of_item: bool
    graph: Graph | None

    @property
    def is_many(self) -> bool:
        """Whether its result is a list."""
        return self.step.each is not None

    @property
    def chooses(self) -> bool:
        """Whether it begins before all steps that it names have ended."""
        return self.step.join not in ("all", "best_effort")


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A workflow that can run. nodes: in an order in which every step comes after its needs.

    steps: as they were posted.
    """

    nodes: dict[str, Node]
    sinks: tuple[str, ...]
    steps: tuple[Step, ...] = ()


@dataclass(slots=True)
class _Wants:
    needs: set[str] = field(default_factory=set)
    strict: set[str] = field(default_factory=set)
    follows: str | None = None
    each_of_item: bool = False

    @property
    def sources(self) -> set[str]:
        return self.needs | ({self.follows} if self.follows else set())


def chart(run: FlowRun, *, max_steps: int = 1000) -> Graph:
    """Work out the graph of `run`. Raises `BadInput` that names the field, `TooLarge` likewise.

    max_steps: of the workflow and all that are inside its steps, together.
    """
    total = _count(run.steps, 0)
    if total > max_steps:
        raise TooLarge("steps", f"{total} steps; at most {max_steps} are accepted")
    return _chart(run.steps, run.output, "")


def downstream(graph: Graph, names: Iterable[str]) -> set[str]:
    """`names` and every step that depends on one of them, however far."""
    return _reach(names, lambda name: graph.nodes[name].feeds)


def upstream(graph: Graph, names: Iterable[str]) -> set[str]:
    """`names` and every step on which one of them depends, however far."""

    def before(name: str) -> list[str]:
        node = graph.nodes[name]
        return [*node.needs, *((node.follows,) if node.follows else ())]

    return _reach(names, before)


def _reach(names: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    found = set(names)
    left = list(found)
    while left:
        for name in following(left.pop()):
            if name not in found:
                found.add(name)
                left.append(name)
    return found


def _count(steps: list[Step], depth: int) -> int:
    if depth > MAX_NESTING:
        raise TooLarge("steps", f"workflows inside workflows, more than {MAX_NESTING} levels deep")
    return sum(1 + (_count(step.flow.steps, depth + 1) if step.flow else 0) for step in steps)


def _chart(found: list[Step], output: msgspec.Raw | msgspec.UnsetType, where: str) -> Graph:
    steps: dict[str, tuple[int, Step]] = {}
    for index, step in enumerate(found):
        place = f"{where}steps[{index}]"
        if step.id in _RESERVED or step.id == UNDO:
            raise BadInput(f"{place}.id", f"{step.id!r} is reserved; choose another name")
        if step.id in steps:
            raise BadInput(f"{place}.id", f"{step.id!r} is used twice")
        _check_kind(step, place)
        steps[step.id] = (index, step)
    wants = {
        name: _wants(step, f"{where}steps[{index}]", steps) for name, (index, step) in steps.items()
    }
    kept: set[str] = set()
    if output is not UNSET:
        for place, ref in find(msgspec.json.decode(output), f"{where}output"):
            if ref.source != INPUTS:
                if ref.source not in steps:
                    raise BadInput(place, _unknown(ref.source, steps))
                kept.add(ref.source)
    _check_chains(steps, {name: want.follows for name, want in wants.items()}, where)
    waits = {name: want.sources for name, want in wants.items()}
    order = _ordered(waits, where)
    for name, want in wants.items():
        _check_join(steps[name], want, steps, where)
    feeds: dict[str, list[str]] = {name: [] for name in steps}
    for name in order:
        for source in sorted(waits[name]):
            feeds[source].append(name)
    nodes = {}
    for name in order:
        index, step = steps[name]
        want = wants[name]
        inside = step.flow
        nodes[name] = Node(
            step=step,
            needs=frozenset(want.needs),
            follows=want.follows,
            feeds=tuple(feeds[name]),
            strict=frozenset(want.strict),
            tolerated=bool(feeds[name])
            and all(_tolerates(steps[fed][1], wants[fed], name) for fed in feeds[name]),
            kept=name in kept,
            each_of_item=want.each_of_item,
            graph=None
            if inside is None
            else _chart(inside.steps, inside.output, f"{where}steps[{index}].flow."),
        )
    return Graph(
        nodes=nodes,
        sinks=tuple(name for name in steps if not feeds[name]),
        steps=tuple(found),
    )


def _tolerates(step: Step, want: _Wants, source: str) -> bool:
    return step.join != "all" and source not in want.strict


def _check_kind(step: Step, place: str) -> None:
    """A step is work for a capability, or a gate, or a workflow: exactly one of them."""
    gate, inside = step.gate, step.flow
    if gate is not None and inside is not None:
        raise BadInput(f"{place}.flow", "a gate is no workflow; make two steps of it")
    if gate is None and inside is None:
        if not step.capability:
            raise BadInput(
                f"{place}.capability", "a step needs a capability, or a gate, or a workflow"
            )
        check_capability(step.capability, f"{place}.capability")
    else:
        what = "a gate" if gate is not None else "a step with a workflow"
        if step.capability:
            raise BadInput(f"{place}.capability", f"{what} is not work for a capability")
        for name, value in (
            ("retry", step.retry),
            ("needs", step.needs),
            ("budgets", step.budgets),
            ("units", step.units),
        ):
            if value:
                raise BadInput(f"{place}.{name}", f"{what} runs nowhere itself: it has no {name}")
        if inside is not None and step.timeouts is not None:
            raise BadInput(f"{place}.timeouts", f"{what} has a `timeout` for the whole of it")
    if gate is not None:
        if (gate.kind == "signal") != (gate.signal is not None):
            raise BadInput(f"{place}.gate.signal", "a gate of kind signal names it, no other does")
        if step.at_once is not None:
            raise BadInput(f"{place}.at_once", "gates take no place: all of them are open at once")
    if step.compensate is not None:
        check_capability(step.compensate.capability, f"{place}.compensate.capability")


def _wants(step: Step, place: str, steps: Mapping[str, tuple[int, Step]]) -> _Wants:
    want = _Wants()
    for number, name in enumerate(step.after):
        if name not in steps:
            raise BadInput(f"{place}.after[{number}]", _unknown(name, steps))
        want.needs.add(name)
    refs = list(find(msgspec.json.decode(step.payload), f"{place}.payload"))
    if step.when is not UNSET:
        asked = check_condition(msgspec.json.decode(step.when), f"{place}.when")
        want.each_of_item = any(ref.source == ITEM for _, ref in asked)
        refs += asked
    for where, ref in refs:
        if _is_known(where, ref, step, steps):
            want.needs.add(ref.source)
    if step.compensate is not None:
        for where, ref in find(
            msgspec.json.decode(step.compensate.payload), f"{place}.compensate.payload"
        ):
            _is_known(where, ref, step, steps)
    _add_list(step, f"{place}.each", steps, want)
    if step.join == "all":
        want.strict |= want.needs
    return want


def _add_list(step: Step, place: str, steps: Mapping[str, tuple[int, Step]], want: _Wants) -> None:
    """The list to go over must be there, whatever the join says of the others."""
    each = step.each
    if each is None or each.source == INPUTS:
        return
    if each.source == ITEM:
        raise BadInput(place, "`item` cannot be the list to fan out over")
    if each.source not in steps:
        raise BadInput(place, _unknown(each.source, steps))
    if steps[each.source][1].each is not None and not each.path:
        want.follows = each.source
    else:
        want.needs.add(each.source)
        want.strict.add(each.source)


def _is_known(where: str, ref: Ref, step: Step, steps: Mapping[str, tuple[int, Step]]) -> bool:
    """Whether the reference is to a step. Raises `BadInput` if it is to nothing."""
    if ref.source == ITEM and step.each is None:
        raise BadInput(where, "`item` is known only to a step with `each`")
    if ref.source in _RESERVED:
        return False
    if ref.source not in steps:
        raise BadInput(where, _unknown(ref.source, steps))
    return True


def _check_join(
    found: tuple[int, Step], want: _Wants, steps: Mapping[str, tuple[int, Step]], where: str
) -> None:
    """A join counts at most one success of each single step; of a fan-out nobody knows yet."""
    index, step = found
    wanted = 1 if step.join == "any" else step.join
    if isinstance(wanted, str):
        return
    counted = want.needs - want.strict
    place = f"{where}steps[{index}].join"
    if not counted:
        raise BadInput(place, f"{step.join!r} of nothing: the step names no other to choose from")
    if all(steps[name][1].each is None for name in counted) and wanted > len(counted):
        raise BadInput(place, f"{wanted} must succeed, but only {len(counted)} steps come before")


def _check_chains(
    steps: Mapping[str, tuple[int, Step]], follows: dict[str, str | None], where: str
) -> None:
    """Item by item, one step calls the next: no chain may be longer than a call may go deep."""
    length: dict[str, int] = {}
    for name in steps:
        walk, source = [name], follows[name]
        while source is not None and source not in length and len(walk) <= _MAX_CHAIN:
            walk.append(source)
            source = follows[source]
        known = 0 if source is None else length.get(source, _MAX_CHAIN) + 1
        if known + len(walk) > _MAX_CHAIN + 1:
            raise TooLarge(
                f"{where}steps[{steps[name][0]}].each",
                f"more than {_MAX_CHAIN} fan-outs follow each other item by item, or in a circle",
            )
        for back, passed in enumerate(reversed(walk)):
            length[passed] = known + back


def _ordered(waits: Mapping[str, set[str]], where: str) -> list[str]:
    """The steps, each after what it waits for. Raises `BadInput` that spells out a cycle."""
    order: list[str] = []
    left = {name: set(sources) for name, sources in waits.items()}
    ready = deque(name for name, sources in left.items() if not sources)
    readers: dict[str, list[str]] = {name: [] for name in waits}
    for name, sources in waits.items():
        for source in sources:
            readers[source].append(name)
    while ready:
        name = ready.popleft()
        order.append(name)
        del left[name]
        for reader in readers[name]:
            left[reader].discard(name)
            if not left[reader]:
                ready.append(reader)
    if left:
        raise BadInput(f"{where}steps", f"a cycle: {_cycle(left)}")
    return order


def _cycle(left: dict[str, set[str]]) -> str:
    walk = [min(left)]
    place = {walk[0]: 0}
    while True:
        following = min(left[walk[-1]] & left.keys())
        if following in place:
            return " -> ".join([*walk[place[following] :], following][::-1])
        place[following] = len(walk)
        walk.append(following)


def _unknown(name: str, steps: Mapping[str, tuple[int, Step]]) -> str:
    known = ", ".join(list(steps)[:12])
    return f"there is no step {name!r}; the steps are {known}"
