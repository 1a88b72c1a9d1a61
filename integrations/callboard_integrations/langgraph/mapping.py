"""`workflow_from_graph`: a StateGraph of agent nodes as a workflow of the board, without barriers.

A graph waits for the whole superstep before it goes on; in a workflow a step starts when the steps
before it have ended, and the router runs it also when this process is gone. That is the same graph
only where each node says what it reads and writes, and where it is certain whose value it reads.
What is not certain is named, all of it at once, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langgraph.channels import LastValue
from langgraph.graph import END, START, StateGraph

from callboard_broker.workflow import Selection, StepOptions, Workflow
from callboard_integrations.langgraph.errors import NotMappable
from callboard_integrations.langgraph.node import AgentNode

__all__ = ["workflow_from_graph"]

_STEP_OPTIONS = StepOptions.__optional_keys__


def workflow_from_graph(graph: StateGraph[Any, Any, Any, Any], *, name: str = "graph") -> Workflow:
    """The workflow that does what `graph` does; inputs and result are keys of the state.

    Each node must be an `agent_node` with `reads` and `writes`, and the edges must not depend on
    values or lead back. A key with a reducer has no place in a workflow, for that is Python code.
    Raises `NotMappable`, whose `.reasons` names every obstacle.
    """
    shape = _Shape(graph)
    reasons = list(shape.obstacles())
    if not reasons:
        reasons = list(shape.uncertainties())
    if reasons:
        raise NotMappable(reasons)
    return shape.workflow(name)


class _Shape:
    """The nodes of a graph, what comes before each, and what each writes."""

    def __init__(self, graph: StateGraph[Any, Any, Any, Any]) -> None:
        self._graph = graph
        self._nodes = {name: _agent_node_of(spec.runnable) for name, spec in graph.nodes.items()}
        self._triggers: dict[str, list[tuple[str, ...]]] = {name: [] for name in graph.nodes}
        for source, target in sorted(graph.edges):
            if target != END:
                self._triggers[target].append((source,))
        for sources, target in sorted(graph.waiting_edges):
            if target != END:
                self._triggers[target].append(tuple(sources))
        self._order = self._sorted()
        self._before: dict[str, set[str]] = {}
        for each in self._order:
            direct = self._direct(each)
            self._before[each] = direct.union(*(self._before[one] for one in direct))

    # -- what stands in the way

    def obstacles(self) -> Iterator[str]:
        """What no workflow can do."""
        for source in self._graph.branches:
            yield f"the successors of {source} are chosen by Python code (a conditional edge)"
        if left := sorted(self._nodes.keys() - set(self._order)):
            yield f"{', '.join(left)} lead back to themselves, or are never reached"
        for name, node in self._nodes.items():
            spec = self._graph.nodes[name]
            if node is None:
                yield f"{name} is Python code of this process, and no agent_node"
                continue
            yield from self._node_obstacles(name, node)
            if spec.ends:
                yield f"{name} chooses its successors by a Command"
            if spec.defer:
                yield f"{name} is deferred until all others have ended, which is a barrier"
            if spec.retry_policy or getattr(spec, "timeout", None):
                yield f"{name} has a retry or timeout policy: give agent_node retry= or timeouts="

    def _node_obstacles(self, name: str, node: AgentNode) -> Iterator[str]:
        if node.reads is None:
            yield f"{name} reads the whole state: say which keys with reads="
        if node.writes is None:
            yield f"{name} may write any key: say which one with writes="
        elif type(self._graph.channels.get(node.writes)) is not LastValue:
            yield f"{name} writes {node.writes}, which is joined by a reducer (Python code)"
        if unknown := sorted(node.options.keys() - _STEP_OPTIONS):
            yield f"{name} has options that no step has: {', '.join(unknown)}"

    def uncertainties(self) -> Iterator[str]:
        """What the graph's supersteps decide, and a workflow could not."""
        levels: dict[str, int] = {START: 0}
        for name in self._order:
            found = {max(levels[one] for one in sources) + 1 for sources in self._triggers[name]}
            levels[name] = max(found)
            if len(found) > 1:
                yield (
                    f"{name} would run once for each edge, for what is before it ends in different "
                    "supersteps: add one edge from all of them, add_edge([...], ...)"
                )
        for name in self._order:
            for key in self._reads(name):
                beside = [
                    writer
                    for writer in self._writers(key)
                    if writer != name
                    and writer not in self._before[name]
                    and name not in self._before[writer]
                ]
                if beside:
                    first = beside[0]
                    yield f"{name} reads {key}, and no edge says whether {first} writes it first"
                elif len(self._latest(self._before[name], key)) > 1:
                    yield f"{name} reads {key}, which several nodes before it write in no order"
        for key in sorted({node.writes for node in self._agents() if node.writes}):
            if len(self._latest(set(self._order), key)) > 1:
                yield f"several nodes write {key} last, in no order"

    # -- what comes of it

    def workflow(self, name: str) -> Workflow:
        """The steps, in an order in which each comes after what it needs."""
        flow = Workflow(name)
        steps: dict[str, Selection] = {}

        def value(key: str, before: set[str]) -> Selection:
            latest = self._latest(before, key)
            return steps[latest[0]] if latest else flow.inputs[key]

        for each in self._order:
            node = self._node(each)
            payload: Any = {key: value(key, self._before[each]) for key in self._reads(each)}
            if isinstance(node.reads, str):
                payload = payload[node.reads]
            after = [steps[one] for one in sorted(self._direct(each))]
            options: Any = node.options
            steps[each] = flow.step(each, node.capability, payload, after=after, **options)
        keys = {node.writes for node in self._agents() if node.writes}
        read = {key for each in self._order for key in self._reads(each)}
        flow.returns({key: value(key, set(self._order)) for key in sorted(keys | read)})
        return flow

    # -- inside

    def _sorted(self) -> list[str]:
        """The nodes that can be reached without going back, each after those before it."""
        order: list[str] = []
        while True:
            ready = [
                name
                for name, triggers in sorted(self._triggers.items())
                if name not in order
                and triggers
                and all(one in (START, *order) for sources in triggers for one in sources)
            ]
            if not ready:
                return order
            order += ready

    def _direct(self, name: str) -> set[str]:
        return {one for sources in self._triggers[name] for one in sources} - {START}

    def _node(self, name: str) -> AgentNode:
        node = self._nodes[name]
        if node is None:
            raise NotMappable([f"{name} is no agent_node"])
        return node

    def _agents(self) -> Iterator[AgentNode]:
        return (self._node(name) for name in self._order)

    def _reads(self, name: str) -> list[str]:
        reads = self._node(name).reads
        return [reads] if isinstance(reads, str) else list(reads or ())

    def _writers(self, key: str) -> list[str]:
        return [name for name in self._order if self._node(name).writes == key]

    def _latest(self, among: set[str], key: str) -> list[str]:
        """The writers of `key` among these nodes after which none of them writes it again."""
        writers = [name for name in self._writers(key) if name in among]
        return [
            name for name in writers if not any(name in self._before[other] for other in writers)
        ]


def _agent_node_of(runnable: Any) -> AgentNode | None:
    for place in ("afunc", "func"):
        found = getattr(runnable, place, None)
        found = getattr(found, "__self__", found)
        if isinstance(found, AgentNode):
            return found
    return None
