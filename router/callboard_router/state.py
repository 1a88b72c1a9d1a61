"""The state that the fold builds: live tasks and workflows, tokens in use, limits, the epoch.

Only what is still needed is kept. A finished task leaves at once; a finished step leaves its
result, by value up to `INLINE` bytes and by the outcome's sequence above. `fresh` is the fold's
letterbox to the policy and no part of the state: it names what may have become possible.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

import msgspec

from callboard_broker.graph import Graph
from callboard_broker.rule import Life
from callboard_broker.wire import BlobRef, Failure

__all__ = ["FOLD_VERSION", "INLINE", "Flow", "Result", "State", "StepState", "Task"]

FOLD_VERSION = 1
INLINE = 4096


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step's result. value: its JSON, if short; else it stands in the outcome at `seq`."""

    seq: int
    value: bytes | None = None
    blob: BlobRef | None = None


@dataclass(slots=True, kw_only=True)
class Task:
    """A live task. order: the journal sequence that made it ready; older goes first.

    payload: its JSON, if short; else it stands in the post at `order`, or in `blob`.
    queue: (pool, capability) of the attempt that runs.
    """

    id: str
    tenant: str
    capability: str
    shard: int
    order: int
    priority: int = 5
    timeout: float | None = None
    payload: bytes | None = None
    blob: BlobRef | None = None
    life: Life
    flow: str | None = None
    step: str = ""
    index: int = 0
    queue: tuple[str, str] = ("", "")


@dataclass(slots=True, kw_only=True)
class StepState:
    """Where a step of a live workflow stands. total: its elements, once that is known.

    failures: elements that have ended without a result. unexpandable: its list is not to be had.
    """

    total: int | None = None
    results: dict[int, Result] = field(default_factory=dict)
    failures: set[int] = field(default_factory=set)
    unexpandable: bool = False

    @property
    def complete(self) -> bool:
        return self.total is not None and len(self.results) == self.total


@dataclass(slots=True, kw_only=True)
class Flow:
    """A live workflow. open: its tasks that are not finished and its fan-outs not yet expanded.

    inputs: their JSON, if short; else they stand in the post at `seq`.
    """

    id: str
    tenant: str
    shard: int
    seq: int
    name: str
    graph: Graph
    output: bytes | None
    inputs: bytes | None
    steps: dict[str, StepState]
    open: int = 0
    failure: Failure | None = None


@dataclass(slots=True)
class State:
    """Everything that the journal says, up to `seq`."""

    seq: int = 0
    at_ms: int = 0
    epoch: int = 0
    router: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    in_use: Counter[str] = field(default_factory=Counter)
    running: Counter[tuple[str, str]] = field(default_factory=Counter)
    nonces: OrderedDict[tuple[str, str], tuple[str, int]] = field(default_factory=OrderedDict)
    keys: dict[str, OrderedDict[str, tuple[str, int]]] = field(default_factory=dict)
    merges: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    to_expand: dict[tuple[str, str], None] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    finished: Counter[str] = field(default_factory=Counter)
    void: int = 0
    fresh: deque[str] = field(default_factory=deque)

    def digest(self) -> str:
        """SHA-256 of the whole state, hex: two folds of one prefix have the same one."""
        return hashlib.sha256(_encoder.encode(self._plain())).hexdigest()

    def _plain(self) -> list[object]:
        return [
            FOLD_VERSION,
            [self.seq, self.at_ms, self.epoch, self.router],
            sorted(self.limits.items()),
            [self.tasks[name] for name in sorted(self.tasks)],
            [_plain_flow(self.flows[name]) for name in sorted(self.flows)],
            sorted((key, count) for key, count in self.in_use.items() if count),
            [list(self.nonces.items()), [(t, list(k.items())) for t, k in self.keys.items()]],
            sorted(self.merges.items()),
            sorted(self.to_expand),
            sorted(self.unreadable.items()),
            sorted(self.finished.items()),
            self.void,
        ]


_encoder = msgspec.msgpack.Encoder()


def _plain_flow(flow: Flow) -> list[object]:
    return [
        [flow.id, flow.tenant, flow.shard, flow.seq, flow.name, flow.output, flow.inputs],
        [node.step for node in flow.graph.nodes.values()],
        [
            [
                [name, step.total, step.unexpandable],
                [sorted(step.failures), sorted(step.results.items())],
            ]
            for name, step in flow.steps.items()
        ],
        flow.open,
        flow.failure,
    ]
