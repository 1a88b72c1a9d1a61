"""A live workflow: its graph, and where each of its steps stands.

`plain_flow` writes one down for a snapshot, `restore_flow` reads it again. What can be counted from
the rest (`Tally`) is not written.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from callboard_broker.graph import Graph, chart
from callboard_broker.wire import BlobRef, Failure, FlowRun, Step, TerminalState, Terms
from callboard_router.budget import Need

__all__ = ["INLINE", "Flow", "Result", "StepState", "Tally", "plain_flow", "restore_flow"]

INLINE = 4096


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step's result. value: its JSON, if short; else it stands in the event at `seq`, or `blob`.

    attempt, host: which attempt gave it, and where it ran.
    """

    seq: int
    value: bytes | None = None
    blob: BlobRef | None = None
    attempt: int = 0
    host: str | None = None


@dataclass(slots=True)
class Tally:
    """What has become of the steps before this one; counted as it happens, never by looking.

    left: strict sources that are not complete. won, failed, skipped: elements of the others.
    over: others of which every element has ended. unknown: others whose number of elements is not
    known yet; expected: elements of those whose is. barred: why a strict source bars the step.
    """

    left: int = 0
    won: int = 0
    failed: int = 0
    skipped: int = 0
    over: int = 0
    unknown: int = 0
    expected: int = 0
    barred: Literal["", "failed", "skipped"] = ""


@dataclass(slots=True, kw_only=True)
class StepState:
    """Where a step of a live workflow stands. total: its elements, once that is known.

    results, failures, skipped: its elements that have ended, the latter two with the last attempt
    of each (0: it never ran). undone: elements that were compensated. begun: the sequence at which
    the step's join was satisfied; a result that came later it does not see. fate: why the step as
    a whole never runs. released: nobody needs what is left of it. attempts: of elements of earlier
    generations, the last one. asleep: inner workflows that ended without success.
    entered: elements with an inner workflow that live; held: those that may not yet.
    """

    total: int | None = None
    results: dict[int, Result] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    skipped: dict[int, int] = field(default_factory=dict)
    undone: list[int] = field(default_factory=list)
    begun: int = 0
    fate: Literal["", "failed", "skipped"] = ""
    released: bool = False
    attempts: dict[int, int] = field(default_factory=dict)
    asleep: dict[int, Flow] = field(default_factory=dict)
    entered: int = 0
    held: deque[int] = field(default_factory=deque)
    tally: Tally = field(default_factory=Tally)
    need: Need | None = None
    terms: Terms | None = None

    @property
    def complete(self) -> bool:
        """Whether every element has a result."""
        return self.total is not None and len(self.results) == self.total

    @property
    def over(self) -> bool:
        """Whether nothing of it can happen any more."""
        if self.fate:
            return True
        return self.total is not None and self.ended == self.total

    @property
    def ended(self) -> int:
        return len(self.results) + len(self.failures) + len(self.skipped)


@dataclass(slots=True, kw_only=True)
class Flow:
    """A live workflow. seq: of its post, or of the event that entered it.

    inputs: the first ones, and edits on top of them. open: what is not finished: its tasks and what
    they spawned, fan-outs not yet expanded, inner workflows. failure: why it cannot succeed.
    ending: why it is being halted, with `reason`. expires_at: in milliseconds. parent, step, index:
    the element of another workflow that it is. root: the outermost one. depth: 0 for that.
    keys: its own budgets. signals: the latest of each name. undos: elements to be undone, the next
    one last; undoing: the one that is; undone: how many were begun. last_attempt: the highest of
    its tasks; base: attempts of its tasks count from there. trace: if one was given.
    """

    id: str
    tenant: str
    shard: int
    seq: int
    name: str
    graph: Graph
    output: bytes | None
    inputs: list[Result]
    steps: dict[str, StepState]
    open: int = 0
    failure: Failure | None = None
    ending: TerminalState | None = None
    reason: str = ""
    paused: bool = False
    generation: int = 0
    began_at: int = 0
    timeout: float | None = None
    expires_at: int | None = None
    parent: str | None = None
    step: str = ""
    index: int = 0
    at_once: int | None = None
    keys: tuple[str, ...] = ()
    nested: dict[str, None] = field(default_factory=dict)
    signals: dict[str, Result] = field(default_factory=dict)
    undos: list[tuple[str, int]] | None = None
    undoing: tuple[str, int] | None = None
    undone: int = 0
    last_attempt: int = 0
    base: int = 0
    trace: str = ""

    @property
    def failing(self) -> bool:
        """Whether it can no longer succeed."""
        return self.failure is not None or self.ending is not None

    def is_sub_flow(self, name: str) -> bool:
        """Whether the router lets this step begin without an agent.

        It is a workflow of its own, or a gate with a condition.
        """
        node = self.graph.nodes.get(name)
        if node is None:
            return False
        return node.graph is not None or (
            node.step.gate is not None and node.step.when is not UNSET
        )


_FLOW = (
    "id",
    "tenant",
    "shard",
    "seq",
    "name",
    "output",
    "open",
    "reason",
    "paused",
    "generation",
    "began_at",
    "timeout",
    "expires_at",
    "parent",
    "step",
    "index",
    "at_once",
    "undone",
    "last_attempt",
    "base",
    "ending",
)
_STEP = ("total", "begun", "fate", "released", "entered")
_steps_of = msgspec.json.Decoder(list[Step])


def plain_flow(flow: Flow) -> Any:
    """The workflow as plain data: lists, dicts with sorted keys, text, bytes, numbers."""
    return {
        "spec": msgspec.json.encode(flow.graph.steps),
        "flow": [getattr(flow, name) for name in _FLOW],
        "failure": msgspec.to_builtins(flow.failure),
        "inputs": [_plain_result(found) for found in flow.inputs],
        "keys": list(flow.keys),
        "nested": sorted(flow.nested),
        "signals": [[name, _plain_result(flow.signals[name])] for name in sorted(flow.signals)],
        "undos": None if flow.undos is None else [list(undo) for undo in flow.undos],
        "undoing": None if flow.undoing is None else list(flow.undoing),
        "steps": [[name, _plain_step(flow.steps[name])] for name in sorted(flow.steps)],
        **({"trace": flow.trace} if flow.trace else {}),
    }


def _plain_result(found: Result) -> Any:
    blob = None if found.blob is None else msgspec.to_builtins(found.blob)
    return [found.seq, found.value, blob, found.attempt, found.host]


def _plain_step(step: StepState) -> Any:
    return [
        [getattr(step, name) for name in _STEP],
        [[index, *_plain_result(step.results[index])] for index in sorted(step.results)],
        [[index, step.failures[index]] for index in sorted(step.failures)],
        [[index, step.skipped[index]] for index in sorted(step.skipped)],
        sorted(step.undone),
        [[index, step.attempts[index]] for index in sorted(step.attempts)],
        list(step.held),
        [[index, plain_flow(step.asleep[index])] for index in sorted(step.asleep)],
    ]


def restore_flow(plain: Any) -> Flow:
    """The workflow that `plain_flow` wrote down; `workflow.recount` then counts its tallies."""
    values = dict(zip(_FLOW, plain["flow"], strict=True))
    graph = _charted(plain["spec"], values["output"])
    failure = plain["failure"]
    states = {name: _restore_step(found) for name, found in plain["steps"]}
    return Flow(
        **values,
        graph=graph,
        failure=None if failure is None else msgspec.convert(failure, Failure),
        inputs=[_restore_result(found) for found in plain["inputs"]],
        keys=tuple(plain["keys"]),
        nested=dict.fromkeys(plain["nested"]),
        signals={name: _restore_result(found) for name, found in plain["signals"]},
        undos=None if plain["undos"] is None else [(name, at) for name, at in plain["undos"]],
        undoing=None if plain["undoing"] is None else (plain["undoing"][0], plain["undoing"][1]),
        steps={name: states[name] for name in graph.nodes},
        trace=plain.get("trace", ""),
    )


@functools.lru_cache(maxsize=256)
def _charted(spec: bytes, output: bytes | None) -> Graph:
    """Its graph was accepted when it was posted; many workflows are of one kind."""
    run = FlowRun(
        name="restored",
        steps=_steps_of.decode(spec),
        output=UNSET if output is None else msgspec.Raw(output),
    )
    return chart(run, max_steps=sys.maxsize)


def _restore_result(plain: Any) -> Result:
    seq, value, blob, attempt, host = plain
    found = None if blob is None else msgspec.convert(blob, BlobRef)
    return Result(seq, value, found, attempt, host)


def _restore_step(plain: Any) -> StepState:
    values, results, failures, skipped, undone, attempts, held, asleep = plain
    return StepState(
        **dict(zip(_STEP, values, strict=True)),
        results={found[0]: _restore_result(found[1:]) for found in results},
        failures=dict(failures),
        skipped=dict(skipped),
        undone=list(undone),
        attempts=dict(attempts),
        held=deque(held),
        asleep={index: restore_flow(found) for index, found in asleep},
    )
