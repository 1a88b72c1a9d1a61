"""A step's payload is its template with the upstream values put in, when it is dispatched.

Short results stand in the state; long ones have to be fetched first. So each question here takes
the values that are at hand, and `Missing` says which are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.references import INPUTS, ITEM, fill, select
from callboard_broker.wire import BlobRef, Ref
from callboard_router.state import Flow, Result, State, Task

__all__ = ["Missing", "Source", "Values", "count_items", "fill_output", "fill_payload"]

_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A value to be fetched: the result in the outcome at `seq`, or the inputs posted at `seq`."""

    seq: int
    inputs: bool = False
    blob: BlobRef | None = None


class Missing(LookupError):
    """Fetch `.sources`, then ask again."""

    def __init__(self, sources: set[Source]) -> None:
        super().__init__(f"{len(sources)} values are to be fetched")
        self.sources = sources


@dataclass(slots=True)
class Values:
    """Decoded values of live workflows, kept while the workflow lives."""

    _found: dict[str, dict[Source, Any]] = field(default_factory=dict)
    _lists: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def put(self, flow: str, source: Source, value: Any) -> None:
        """A fetched value has come."""
        self._found.setdefault(flow, {})[source] = value

    def drop(self, flow: str) -> None:
        """The workflow is over."""
        self._found.pop(flow, None)
        self._lists.pop(flow, None)

    def inputs(self, flow: Flow) -> Any:
        return self._value(flow, Source(flow.seq, inputs=True), flow.inputs)

    def result(self, flow: Flow, found: Result) -> Any:
        return self._value(flow, Source(found.seq, blob=found.blob), found.value)

    def whole(self, flow: Flow, name: str) -> Any:
        """The result of a step: of a fan-out, the list of its results in order."""
        step = flow.steps[name]
        if flow.graph.nodes[name].step.each is None:
            return self.result(flow, step.results[0])
        lists = self._lists.setdefault(flow.id, {})
        if name not in lists:
            values, missing = [], set[Source]()
            for index in range(step.total or 0):
                try:
                    values.append(self.result(flow, step.results[index]))
                except Missing as error:
                    missing |= error.sources
            if missing:
                raise Missing(missing)
            lists[name] = values
        return lists[name]

    def _value(self, flow: Flow, source: Source, short: bytes | None) -> Any:
        found = self._found.setdefault(flow.id, {})
        if source not in found:
            if short is None:
                raise Missing({source})
            try:
                found[source] = msgspec.json.decode(short)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                # A result is decoded here for the first time, and a host may have sent anything.
                raise BadInput("payload", f"an upstream result is no JSON: {error}") from error
        return found[source]


def fill_payload(state: State, task: Task, values: Values) -> bytes:
    """The payload of a step's task. Raises `Missing`, or `BadInput` that says what is not there."""
    flow = state.flows[task.flow or ""]
    node = flow.graph.nodes[task.step]

    def chosen(ref: Ref) -> Any:
        if ref.source == INPUTS:
            return select(values.inputs(flow), ref.path, INPUTS)
        if ref.source == ITEM:
            if node.follows is not None:
                item = values.result(flow, flow.steps[node.follows].results[task.index])
            else:
                item = _list(flow, task.step, values)[task.index]
            return select(item, ref.path, ITEM)
        return select(values.whole(flow, ref.source), ref.path, ref.source)

    return _filled(node.step.payload, chosen)


def count_items(state: State, flow_id: str, step: str, values: Values, most: int) -> int:
    """How many elements a fan-out has. Raises `Missing`, `BadInput`, or `TooLarge` over `most`."""
    found = len(_list(state.flows[flow_id], step, values))
    if found > most:
        raise TooLarge("each", f"{found:,} elements; at most {most:,} are accepted")
    return found


def fill_output(state: State, flow_id: str, values: Values) -> bytes:
    """The result of a workflow that has succeeded. Raises `Missing` or `BadInput`."""
    flow = state.flows[flow_id]

    def chosen(ref: Ref) -> Any:
        if ref.source == INPUTS:
            return select(values.inputs(flow), ref.path, INPUTS)
        return select(values.whole(flow, ref.source), ref.path, ref.source)

    if flow.output is None:
        return msgspec.json.encode({name: values.whole(flow, name) for name in flow.graph.sinks})
    return _filled(flow.output, chosen)


def _list(flow: Flow, step: str, values: Values) -> list[Any]:
    each = flow.graph.nodes[step].step.each
    if each is None:
        raise AssertionError(step)
    whole = values.inputs(flow) if each.source == INPUTS else values.whole(flow, each.source)
    found = select(whole, each.path, each.source)
    if not isinstance(found, list):
        place = ".".join(filter(None, (each.source, each.path)))
        raise BadInput("each", f"{place} is a {type(found).__name__}, must be a list")
    return found


def _filled(template: bytes | msgspec.Raw, chosen: Callable[[Ref], Any]) -> bytes:
    """The template with its values. A short template may name a long value many times: bounded."""
    length = 0

    def value_of(ref: Ref) -> msgspec.Raw:
        nonlocal length
        value = msgspec.json.encode(chosen(ref))
        length += len(value)
        if length > _MAX_BYTES:
            raise TooLarge("payload", f"over {_MAX_BYTES:,} bytes with its references filled in")
        return msgspec.Raw(value)

    return msgspec.json.encode(fill(msgspec.json.decode(template), value_of))
