"""How one step's progress starts, bars or releases the steps after it, without a barrier.

Each change is told to the steps that name the changed one (`spread`), which count it (`Tally`) and
are judged: they begin, or never will, or wait on. The cost of a finished element does not depend
on how many elements or steps there are. Chains are walked by a list and not by calls.
"""

from __future__ import annotations

from typing import Literal

from callboard_broker.graph import Node
from callboard_broker.wire import Failure
from callboard_router.elements import create, resume_step
from callboard_router.flow import Flow, Result, StepState, Tally
from callboard_router.state import State
from callboard_router.stopping import stop_step

__all__ = [
    "Change",
    "at_step",
    "ended",
    "expanded",
    "judge",
    "recount",
    "set_fate",
    "spread",
]

Kind = Literal["known", "won", "failed", "skipped", "fate", "over"]
Change = tuple[str, Kind, int]
"""What has become of a step: (its name, what, the element that it concerns)."""

_NO_LONGER_NEEDED = "the join that it was for is satisfied"


def recount(flow: Flow) -> None:
    """Count every tally anew, from where the steps stand."""
    for name, node in flow.graph.nodes.items():
        tally = flow.steps[name].tally = Tally()
        for source in node.needs:
            step = flow.steps[source]
            failed = len(step.failures) + (step.fate == "failed")
            skipped = len(step.skipped) + (step.fate == "skipped")
            if source in node.strict:
                tally.left += not (step.complete and not step.fate)
                if failed or skipped:
                    tally.barred = "failed" if failed else "skipped"
                continue
            tally.won += len(step.results)
            tally.failed += failed
            tally.skipped += skipped
            tally.over += step.over
            tally.unknown += step.total is None and not step.fate
            tally.expected += step.ended + 1 if step.fate else step.total or 0


def spread(state: State, flow: Flow, work: list[Change]) -> None:
    """Tell every step that is concerned, and those that are concerned by that, and so on.

    Joins that choose go first: what they no longer need does not begin in the same moment.
    """
    nodes, choosing, later = flow.graph.nodes, dict[str, None](), dict[str, None]()
    while (work or choosing or later) and flow.ending is None:
        if not work:
            name = _first(nodes, choosing) if choosing else next(iter(later))
            choosing.pop(name, None)
            later.pop(name, None)
            judge(state, flow, name, work)
            continue
        source, kind, index = work.pop()
        for name in nodes[source].feeds:
            node, step = nodes[name], flow.steps[name]
            if node.follows == source and not step.fate:
                _follow(state, flow, node, kind, index, work)
            if source in node.needs:
                _count(flow.steps[source], step.tally, kind, strict=source in node.strict)
            if step.begun or step.fate:
                continue
            (choosing if node.chooses else later)[name] = None


def _first(nodes: dict[str, Node], names: dict[str, None]) -> str:
    """Of several, the first one in the graph's order: however the news of them came."""
    if len(names) == 1:
        return next(iter(names))
    return next(name for name in nodes if name in names)


def ended(
    flow: Flow, name: str, index: int, found: Result | int, work: list[Change], *, skipped: bool
) -> None:
    """An element has ended: with a result, or without one after `found` attempts."""
    step = flow.steps[name]
    kind: Kind = "skipped"
    if isinstance(found, Result):
        step.results[index] = found
        kind = "won"
    elif skipped:
        step.skipped[index] = found
    else:
        step.failures[index] = found
        kind = "failed"
    if step.over:
        work.append((name, "over", 0))
    work.append((name, kind, index))


def expanded(flow: Flow, name: str, total: int, work: list[Change]) -> None:
    """The number of a step's elements is known."""
    flow.steps[name].total = total
    if not total:
        work.append((name, "over", 0))
    work.append((name, "known", 0))


def set_fate(
    flow: Flow, name: str, fate: Literal["failed", "skipped"], why: Failure, work: list[Change]
) -> None:
    """The step will never run."""
    flow.steps[name].fate = fate
    if fate == "failed" and not flow.graph.nodes[name].tolerated and flow.ending is None:
        flow.failure = flow.failure or at_step(name, why)
    work.append((name, "fate", 0))


def at_step(step: str, why: Failure) -> Failure:
    """A step's failure as the workflow's."""
    field = f"{step}.{why.field}" if why.field else None
    return Failure(why.type, f"step {step}: {why.message}", field=field)


def judge(state: State, flow: Flow, name: str, work: list[Change]) -> None:
    """Let a step begin whose join is satisfied, and give up one whose join cannot be."""
    node, step = flow.graph.nodes[name], flow.steps[name]
    tally = step.tally
    if step.begun or step.fate or step.released or step.over:
        return
    if tally.barred:
        why = Failure("Upstream", f"a step that it needs has {tally.barred}")
        set_fate(flow, name, tally.barred, why, work)
        return
    if tally.left:
        return
    join, sources = node.step.join, len(node.needs) - len(node.strict)
    if isinstance(join, str) and join != "any":
        if join == "all" or tally.over == sources:
            _begin(state, flow, node, work)
        return
    wanted = join if isinstance(join, int) else 1
    possible = tally.expected - tally.failed - tally.skipped
    if tally.won >= wanted:
        _begin(state, flow, node, work)
        _release(state, flow, node, work)
    elif tally.over == sources or (not tally.unknown and possible < wanted):
        says = f"{wanted} of the steps before it must succeed; {tally.won} did and "
        says += f"{tally.failed + tally.skipped} did not"
        fate: Literal["failed", "skipped"] = "failed" if tally.failed else "skipped"
        set_fate(flow, name, fate, Failure("JoinFailed", says), work)


def _count(source: StepState, tally: Tally, kind: Kind, *, strict: bool) -> None:
    if kind == "fate":
        if strict:
            tally.barred = tally.barred or source.fate
            return
        tally.over += 1
        tally.unknown -= source.total is None
        tally.expected += 1 - ((source.total or source.ended) - source.ended)
        tally.failed += source.fate == "failed"
        tally.skipped += source.fate == "skipped"
    elif strict:
        if kind == "over":
            tally.left -= source.complete
        elif kind in ("failed", "skipped"):
            tally.barred = tally.barred or kind
    elif kind == "known":
        tally.unknown -= 1
        tally.expected += source.total or 0
    elif kind == "won":
        tally.won += 1
    elif kind == "over":
        tally.over += 1
    elif kind == "failed":
        tally.failed += 1
    else:
        tally.skipped += 1


def _follow(
    state: State, flow: Flow, node: Node, kind: Kind, index: int, work: list[Change]
) -> None:
    """A step that goes item by item hears of the step that it follows."""
    name = node.step.id
    step, source = flow.steps[name], flow.steps[node.follows or ""]
    if kind == "known":
        expanded(flow, name, source.total or 0, work)
    elif kind == "won":
        if step.begun:
            create(state, flow, node, index)
    elif kind in ("failed", "skipped"):
        _bar(flow, node, index, work, skipped=kind == "skipped")
    elif kind == "fate":
        why = Failure("Upstream", f"the step that it follows has {source.fate}")
        set_fate(flow, name, source.fate or "failed", why, work)


def _bar(flow: Flow, node: Node, index: int, work: list[Change], *, skipped: bool) -> None:
    """The element of the step that this one follows has no result: this one never runs."""
    name = node.step.id
    attempt = flow.steps[name].attempts.pop(index, 0)
    ended(flow, name, index, attempt, work, skipped=skipped)
    if not skipped and not node.tolerated and flow.ending is None:
        why = Failure("Upstream", f"element {index} of {node.follows} has failed")
        flow.failure = flow.failure or at_step(name, why)


def _begin(state: State, flow: Flow, node: Node, work: list[Change]) -> None:
    step = flow.steps[node.step.id]
    step.begun = state.seq
    if node.follows is not None:
        resume_step(state, flow, node)
    elif node.is_many:
        state.to_expand[(flow.id, node.step.id)] = None
        flow.open += 1
        state.fresh.append(flow.id)
    else:
        expanded(flow, node.step.id, 1, work)
        create(state, flow, node, 0)


# -- what a satisfied join no longer needs


def _release(state: State, flow: Flow, node: Node, work: list[Change]) -> None:
    left = sorted(node.needs - node.strict)
    while left:
        name = left.pop()
        source = flow.graph.nodes[name]
        step = flow.steps[name]
        if step.released or step.over or not _is_useless(flow, source):
            continue
        step.released = True
        if (flow.id, name) in state.to_expand:
            del state.to_expand[(flow.id, name)]
            flow.open -= 1
            step.begun = 0
        if step.begun:
            stop_step(state, flow, name, _NO_LONGER_NEEDED)
        else:
            set_fate(flow, name, "skipped", Failure("Skipped", _NO_LONGER_NEEDED), work)
        left += sorted(source.needs | ({source.follows} if source.follows else set()))


def _is_useless(flow: Flow, node: Node) -> bool:
    """Whether all that it feeds has begun without it, or never will."""
    return not node.kept and all(_done_with(flow, fed, node) for fed in node.feeds)


def _done_with(flow: Flow, name: str, source: Node) -> bool:
    node, step = flow.graph.nodes[name], flow.steps[name]
    if step.released or step.over:
        return True
    chosen = source.step.id in node.needs - node.strict and node.follows != source.step.id
    return bool(step.begun) and chosen
