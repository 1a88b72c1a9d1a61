"""What a posted workflow depends on: checked once at the door and once by the router.

`chart` refuses, by name, what can never run: duplicate or unknown steps, cycles, references out of
place, absurd sizes. There is no barrier between levels: a step waits for what it names and for
nothing else. A fan-out over another fan-out's whole list (`each: {"from": "other"}`, no path) goes
item by item: element i starts when element i of the other step is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.references import INPUTS, ITEM, find
from callboard_broker.subjects import check_capability
from callboard_broker.wire import FlowRun, Step

__all__ = ["Graph", "Node", "chart"]

_RESERVED = frozenset({INPUTS, ITEM})
_MAX_CHAIN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step and what must have succeeded before it.

    needs: steps that must be complete. follows: the fan-out that this one follows item by item.
    feeds: steps that name this one.
    """

    step: Step
    needs: frozenset[str]
    follows: str | None
    feeds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A workflow that can run. nodes: in an order in which every step comes after its needs."""

    nodes: dict[str, Node]
    sinks: tuple[str, ...]


def chart(run: FlowRun, *, max_steps: int = 1000) -> Graph:
    """Work out the graph of `run`. Raises `BadInput` that names the field, `TooLarge` likewise."""
    if len(run.steps) > max_steps:
        raise TooLarge("steps", f"{len(run.steps)} steps; at most {max_steps} are accepted")
    steps: dict[str, tuple[int, Step]] = {}
    for index, step in enumerate(run.steps):
        place = f"steps[{index}]"
        if step.id in _RESERVED:
            raise BadInput(f"{place}.id", f"{step.id!r} is reserved; choose another name")
        if step.id in steps:
            raise BadInput(f"{place}.id", f"{step.id!r} is used twice")
        check_capability(step.capability, f"{place}.capability")
        steps[step.id] = (index, step)
    needs: dict[str, set[str]] = {}
    follows: dict[str, str | None] = {}
    for name, (index, step) in steps.items():
        needs[name], follows[name] = _wants(step, f"steps[{index}]", steps)
    if run.output is not msgspec.UNSET:
        for place, ref in find(msgspec.json.decode(run.output), "output"):
            if ref.source != INPUTS and ref.source not in steps:
                raise BadInput(place, _unknown(ref.source, steps))
    _check_chains(steps, follows)
    waits = {name: needs[name] | ({f} if (f := follows[name]) else set()) for name in steps}
    order = _ordered(waits)
    feeds: dict[str, list[str]] = {name: [] for name in steps}
    for name in order:
        for source in sorted(waits[name]):
            feeds[source].append(name)
    nodes = {
        name: Node(
            step=steps[name][1],
            needs=frozenset(needs[name]),
            follows=follows[name],
            feeds=tuple(feeds[name]),
        )
        for name in order
    }
    return Graph(nodes=nodes, sinks=tuple(name for name in steps if not feeds[name]))


def _wants(
    step: Step, place: str, steps: dict[str, tuple[int, Step]]
) -> tuple[set[str], str | None]:
    needs: set[str] = set()
    for number, name in enumerate(step.after):
        if name not in steps:
            raise BadInput(f"{place}.after[{number}]", _unknown(name, steps))
        needs.add(name)
    for where, ref in find(msgspec.json.decode(step.payload), f"{place}.payload"):
        if ref.source == ITEM and step.each is None:
            raise BadInput(where, "`item` is known only to a step with `each`")
        if ref.source in _RESERVED:
            continue
        if ref.source not in steps:
            raise BadInput(where, _unknown(ref.source, steps))
        needs.add(ref.source)
    each = step.each
    if each is None or each.source == INPUTS:
        return needs, None
    if each.source == ITEM:
        raise BadInput(f"{place}.each", "`item` cannot be the list to fan out over")
    if each.source not in steps:
        raise BadInput(f"{place}.each", _unknown(each.source, steps))
    if steps[each.source][1].each is not None and not each.path:
        return needs, each.source
    needs.add(each.source)
    return needs, None


def _check_chains(steps: dict[str, tuple[int, Step]], follows: dict[str, str | None]) -> None:
    """Item by item, one step calls the next: no chain may be longer than a call may go deep."""
    for name in steps:
        length, source = 0, follows[name]
        while source is not None and length <= _MAX_CHAIN:
            length, source = length + 1, follows[source]
        if length > _MAX_CHAIN:
            raise TooLarge(
                f"steps[{steps[name][0]}].each",
                f"more than {_MAX_CHAIN} fan-outs follow each other item by item, or in a circle",
            )


def _ordered(waits: dict[str, set[str]]) -> list[str]:
    """The steps, each after what it waits for. Raises `BadInput` that spells out a cycle."""
    order: list[str] = []
    left = {name: set(sources) for name, sources in waits.items()}
    ready = [name for name, sources in left.items() if not sources]
    readers: dict[str, list[str]] = {name: [] for name in waits}
    for name, sources in waits.items():
        for source in sources:
            readers[source].append(name)
    while ready:
        name = ready.pop(0)
        order.append(name)
        del left[name]
        for reader in readers[name]:
            left[reader].discard(name)
            if not left[reader]:
                ready.append(reader)
    if left:
        raise BadInput("steps", f"a cycle: {_cycle(left)}")
    return order


def _cycle(left: dict[str, set[str]]) -> str:
    walk = [min(left)]
    while True:
        following = min(left[walk[-1]] & left.keys())
        if following in walk:
            return " -> ".join([*walk[walk.index(following) :], following][::-1])
        walk.append(following)


def _unknown(name: str, steps: dict[str, tuple[int, Step]]) -> str:
    known = ", ".join(list(steps)[:12])
    return f"there is no step {name!r}; the steps are {known}"
