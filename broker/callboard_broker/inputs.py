"""What a workflow takes of its inputs must be there: checked where it is posted.

The inputs stand in the post, so a path into them that leads nowhere is known to fail its step, and
often hours later. Passed over is what may never run, or whose failure is coped with: a step under a
condition, or after one, and one that all that follows it can do without.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET

from callboard_broker.errors import BadInput
from callboard_broker.graph import Graph, Node
from callboard_broker.references import INPUTS, find, select
from callboard_broker.wire import FlowRun, Ref

__all__ = ["check_inputs"]


def check_inputs(run: FlowRun, graph: Graph) -> None:
    """Raise `BadInput` that names the reference to an input that is not there."""
    asked = list(_asked(run, graph))
    if not asked:
        return
    inputs = msgspec.json.decode(run.inputs)
    for place, ref, is_list in asked:
        try:
            found = select(inputs, ref.path, INPUTS)
        except BadInput as bad:
            raise BadInput(place, bad.reason) from bad
        if is_list and not isinstance(found, list):
            raise BadInput(place, "a fan-out goes over a list, and this is none")


def _asked(run: FlowRun, graph: Graph) -> Iterator[tuple[str, Ref, bool]]:
    """(place, reference, whether it must be a list) of each that is certainly looked up."""
    numbers = {step.id: number for number, step in enumerate(run.steps)}
    certain: set[str] = set()
    for name, node in graph.nodes.items():
        if _may_be_skipped(node, certain):
            continue
        certain.add(name)
        if node.tolerated:
            continue
        place, step = f"steps[{numbers[name]}]", node.step
        if step.each is not None and step.each.source == INPUTS:
            yield f"{place}.each", step.each, True
        for where, ref in find(msgspec.json.decode(step.payload), f"{place}.payload"):
            if ref.source == INPUTS:
                yield where, ref, False
    if run.output is not UNSET:
        for where, ref in find(msgspec.json.decode(run.output), "output"):
            if ref.source == INPUTS:
                yield where, ref, False


def _may_be_skipped(node: Node, certain: set[str]) -> bool:
    before = node.needs | ({node.follows} if node.follows else set())
    return node.step.when is not UNSET or not before <= certain
