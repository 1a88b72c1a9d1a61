"""A step's payload is its template with the upstream values put in, when it is dispatched.

Short results stand in the state; long ones have to be fetched first. So each question here takes
the values that are at hand, and `Missing` says which are not. Templates are taken apart once a
step, and a value that many elements need is written as JSON once. What a step that was skipped,
has failed or comes too late for a join would have given is null.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from callboard_broker.conditions import holds
from callboard_broker.errors import TooLarge
from callboard_broker.graph import UNDO, Node
from callboard_broker.references import ITEM, Template, select
from callboard_broker.wire import Ref
from callboard_router.flow import Flow
from callboard_router.state import State, Task
from callboard_router.values import Missing, Source, Values

__all__ = [
    "Missing",
    "Source",
    "Values",
    "condition_of",
    "count_items",
    "fill_output",
    "fill_payload",
]

_MAX_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class _Asked:
    """One filling of a template for an element of a step; `own`: the step that is being undone.

    seen: the step sees no result that came after its join was satisfied.
    """

    values: Values
    flow: Flow
    node: Node | None = None
    index: int = 0
    seen: int = 0
    own: bool = False
    length: int = 0
    missing: set[Source] = field(default_factory=set)

    def value(self, ref: Ref) -> Any:
        node = self.node
        if node is not None and ref.source == ITEM:
            return select(self.values.item(self.flow, node, self.index), ref.path, ITEM)
        if node is not None and self.own and ref.source == node.step.id:
            result = self.values.result(self.flow, self.flow.steps[ref.source].results[self.index])
            return select(result, ref.path, ref.source)
        return self.values.select(self.flow, ref, self.seen)

    def written(self, ref: Ref) -> bytes:
        """The value as JSON. A short template may name a long one many times: bounded."""
        try:
            if ref.source == ITEM or self.own:
                data = msgspec.json.encode(self.value(ref))
            else:
                written = self.values.known(self.flow).written
                key = (ref, self.seen)
                found = written.get(key)
                data = msgspec.json.encode(self.value(ref)) if found is None else found
                written[key] = data
        except Missing as missing:
            self.missing |= missing.sources
            return b""
        self.length += len(data)
        if self.length > _MAX_BYTES:
            raise TooLarge("payload", f"over {_MAX_BYTES:,} bytes with its references filled in")
        return data

    def fill(self, key: str, raw: bytes | msgspec.Raw) -> bytes:
        templates = self.values.known(self.flow).templates
        template = templates.get(key)
        if template is None:
            template = templates[key] = Template(raw)
        filled = template.fill(self.written)
        if self.missing:
            raise Missing(self.missing)
        return filled


def fill_payload(state: State, task: Task, values: Values) -> bytes:
    """The payload of a step's task. Raises `Missing`, or `BadInput` that says what is not there."""
    flow = state.flows[task.flow or ""]
    if task.step == UNDO:
        if flow.undoing is None:
            raise AssertionError(task.id)
        name, index = flow.undoing
        node = flow.graph.nodes[name]
        if node.step.compensate is None:
            raise AssertionError(task.id)
        asked = _Asked(values, flow, node, index, own=True)
        return asked.fill(f"{UNDO}/{name}", node.step.compensate.payload)
    node = flow.graph.nodes[task.step]
    asked = _Asked(values, flow, node, task.index, seen=_seen(flow, node))
    return asked.fill(task.step, node.step.payload)


def condition_of(flow: Flow, name: str, index: int, values: Values) -> bool:
    """Whether the condition of a step's element holds. Raises `Missing` or `BadInput`."""
    node = flow.graph.nodes[name]
    if node.step.when is UNSET:
        return True
    conditions = values.known(flow).conditions
    if name not in conditions:
        conditions[name] = msgspec.json.decode(node.step.when)
    return holds(conditions[name], _Asked(values, flow, node, index, seen=_seen(flow, node)).value)


def count_items(state: State, flow_id: str, step: str, values: Values, most: int) -> int:
    """How many elements a fan-out has. Raises `Missing`, `BadInput`, or `TooLarge` over `most`."""
    found = len(values.items(state.flows[flow_id], step))
    if found > most:
        raise TooLarge("each", f"{found:,} elements; at most {most:,} are accepted")
    return found


def fill_output(state: State, flow_id: str, values: Values) -> bytes:
    """The result of a workflow that has succeeded. Raises `Missing` or `BadInput`."""
    flow = state.flows[flow_id]
    if flow.output is not None:
        return _Asked(values, flow).fill("/output", flow.output)
    found, missing = {}, set[Source]()
    for name in flow.graph.sinks:
        try:
            found[name] = values.whole(flow, name)
        except Missing as error:
            missing |= error.sources
    if missing:
        raise Missing(missing)
    return msgspec.json.encode(found)


def _seen(flow: Flow, node: Node) -> int:
    """Two elements, or two attempts, of a step see the same, whatever comes in between."""
    return flow.steps[node.step.id].begun if node.chooses else 0
