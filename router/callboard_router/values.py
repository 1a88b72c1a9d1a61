"""The values of live workflows: decoded once, merged, listed, and fetched where they are long.

What a step that was skipped, has failed or comes too late for a join would have given is null.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from callboard_broker.errors import BadInput
from callboard_broker.graph import Node
from callboard_broker.references import INPUTS, Template, select
from callboard_broker.wire import BlobRef, Ref
from callboard_router.flow import Flow, Result

__all__ = ["Known", "Missing", "Source", "Values"]


@dataclass(frozen=True, slots=True)
class Source:
    """A value to be fetched: out of the message at `seq`, or out of `blob` where there is one.

    The message may be an outcome or `settled` (its result), the post of a workflow or `entered`
    (its inputs), or a command (its payload): its own kind says which. inputs: it is an object of
    inputs.
    """

    seq: int
    inputs: bool = False
    blob: BlobRef | None = None


class Missing(LookupError):
    """Fetch `.sources`, then ask again."""

    def __init__(self, sources: set[Source]) -> None:
        super().__init__(f"{len(sources)} values are to be fetched")
        self.sources = sources


@dataclass(slots=True)
class Known:
    """What was worked out of one generation of a workflow. seen: see `_Asked`."""

    generation: int
    found: dict[Source, Any] = field(default_factory=dict)
    merged: Any = UNSET
    lists: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    written: dict[tuple[Ref, int], bytes] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Values:
    """Decoded values of live workflows, kept while the workflow lives."""

    _flows: dict[str, Known] = field(default_factory=dict)
    _fetched: dict[str, dict[Source, Any]] = field(default_factory=dict)

    def put(self, flow: str, source: Source, value: Any) -> None:
        """A fetched value has come."""
        self._fetched.setdefault(flow, {})[source] = value

    def drop(self, flow: str) -> None:
        """The workflow is over."""
        self._flows.pop(flow, None)
        self._fetched.pop(flow, None)

    def known(self, flow: Flow) -> Known:
        known = self._flows.get(flow.id)
        if known is None or known.generation != flow.generation:
            known = self._flows[flow.id] = Known(flow.generation)
        return known

    def inputs(self, flow: Flow) -> Any:
        """The inputs, with later edits over them."""
        known = self.known(flow)
        if known.merged is UNSET:
            merged: Any = UNSET
            for layer in flow.inputs:
                value = self._value(flow, Source(layer.seq, True, layer.blob), layer.value)
                both = isinstance(merged, dict) and isinstance(value, dict)
                merged = {**merged, **value} if both else value
            known.merged = merged
        return known.merged

    def result(self, flow: Flow, found: Result) -> Any:
        return self._value(flow, Source(found.seq, blob=found.blob), found.value)

    def whole(self, flow: Flow, name: str, seen: int = 0) -> Any:
        """The result of a step: of a fan-out, the list of its results in order.

        seen: the sequence up to which results count; 0: all of them. A fan-out that never runs is
        null, and so is one of which nothing counted by then, whether it had its list or not.
        """
        step = flow.steps[name]
        if not flow.graph.nodes[name].is_many:
            found = _counted(step.results.get(0), seen)
            return None if found is None else self.result(flow, found)
        if step.fate or (seen and not any(_counted(one, seen) for one in step.results.values())):
            return None
        lists = self.known(flow).lists
        key = (name, seen)
        if key not in lists:
            values, missing = [], set[Source]()
            for index in range(step.total or 0):
                found = _counted(step.results.get(index), seen)
                try:
                    values.append(None if found is None else self.result(flow, found))
                except Missing as error:
                    missing |= error.sources
            if missing:
                raise Missing(missing)
            lists[key] = values
        return lists[key]

    def select(self, flow: Flow, ref: Ref, seen: int = 0) -> Any:
        """What a reference to the inputs or to a step names; null where there is no result."""
        if ref.source == INPUTS:
            return select(self.inputs(flow), ref.path, INPUTS)
        value = self.whole(flow, ref.source, seen)
        if _is_absent(flow, ref, value, seen):
            return None
        return select(value, ref.path, ref.source)

    def items(self, flow: Flow, name: str) -> list[Any]:
        """The list that a fan-out goes over."""
        each = flow.graph.nodes[name].step.each
        if each is None:
            raise AssertionError(name)
        found = self.select(flow, each)
        if not isinstance(found, list):
            place = ".".join(filter(None, (each.source, each.path)))
            raise BadInput("each", f"{place} is a {type(found).__name__}, must be a list")
        return found

    def item(self, flow: Flow, node: Node, index: int) -> Any:
        """The element of a fan-out's list."""
        if node.follows is not None:
            return self.result(flow, flow.steps[node.follows].results[index])
        return self.items(flow, node.step.id)[index]

    def _value(self, flow: Flow, source: Source, short: bytes | None) -> Any:
        found = self.known(flow).found
        if source not in found:
            fetched = self._fetched.get(flow.id)
            if fetched is not None and source in fetched:
                found[source] = fetched[source]
                return found[source]
            if short is None:
                raise Missing({source})
            try:
                found[source] = msgspec.json.decode(short)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                # A result is decoded here for the first time, and a host may have sent anything.
                raise BadInput("payload", f"an upstream result is no JSON: {error}") from error
        return found[source]


def _counted(found: Result | None, seen: int) -> Result | None:
    return None if found is None or (seen and found.seq > seen) else found


def _is_absent(flow: Flow, ref: Ref, value: Any, seen: int) -> bool:
    """Whether there is no result where the reference points to, as far as the reader sees it."""
    node, results = flow.graph.nodes[ref.source], flow.steps[ref.source].results
    if not node.is_many:
        return value is None and _counted(results.get(0), seen) is None
    if value is None:
        return True
    first = ref.path.partition(".")[0]
    if not first.isdecimal() or not isinstance(value, list) or int(first) >= len(value):
        return False
    index = int(first)
    return value[index] is None and _counted(results.get(index), seen) is None
