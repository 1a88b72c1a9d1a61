"""Joins against a model that knows no increments: it looks at everything again after each event."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard_broker.graph import Graph, Node
from callboard_broker.wire import Expanded, Failure, Skipped, encode
from callboard_router.flow import plain_flow, restore_flow
from callboard_router.joining import recount
from tests.simulation.story import Story


class Model:
    """What should be, worked out from scratch. Facts: totals, and how each element has ended."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.totals: dict[str, int] = {}
        self.ends: dict[str, dict[int, str]] = {name: {} for name in graph.nodes}
        self.begun: set[str] = set()
        self.fate: dict[str, str] = {}
        self.released: set[str] = set()
        self.failed = False

    def look(self) -> None:
        """Until nothing changes any more."""
        choosing = [node for node in self.graph.nodes.values() if node.chooses]
        others = [node for node in self.graph.nodes.values() if not node.chooses]
        every = [*self.graph.nodes.values()]
        while (
            any(map(self._follows_on, every))
            or any(map(self._changes, choosing))
            or any(map(self._changes, others))
        ):
            pass  # a join that chooses goes first: what it does not need does not begin

    def live(self) -> set[str]:
        """Elements that should be tasks."""
        return {
            f"{name}.{index}"
            for name in self.begun - self.fate.keys()
            for index in range(self.totals.get(name, 0))
            if index not in self.ends[name] and self._is_ready(name, index)
        }

    def expanding(self) -> set[str]:
        return {
            name
            for name in self.begun - self.totals.keys() - self.fate.keys()
            if self.graph.nodes[name].follows is None
        }

    def end(self, name: str, index: int, how: str) -> None:
        if how == "failed" and name in self.released:
            how = "skipped"
        self.ends[name][index] = how

    def _changes(self, node: Node) -> bool:
        before = self._picture()
        self._look_at(node)
        return bool(before != self._picture())

    def _follows_on(self, node: Node) -> bool:
        before = self._picture()
        self._follow(node)
        return bool(before != self._picture())

    def _picture(self) -> Any:
        ends = {name: dict(found) for name, found in self.ends.items()}
        return dict(self.totals), ends, set(self.begun), dict(self.fate), set(self.released)

    def _is_ready(self, name: str, index: int) -> bool:
        follows = self.graph.nodes[name].follows
        fresh = name not in self.released or index in self._live_when_released.get(name, ())
        return fresh and (follows is None or self.ends[follows].get(index) == "won")

    @property
    def _live_when_released(self) -> dict[str, set[int]]:
        return self.__dict__.setdefault("_kept", {})

    def _over(self, name: str) -> bool:
        return name in self.fate or self.totals.get(name) == len(self.ends[name])

    def _follow(self, node: Node) -> None:
        """What goes item by item hears at once of the step that it follows."""
        name = node.step.id
        if node.follows is not None and name not in self.fate:
            if node.follows in self.totals:
                self.totals.setdefault(name, self.totals[node.follows])
            for index, how in self.ends[node.follows].items():
                if how != "won":
                    self.ends[name].setdefault(index, how)
            if node.follows in self.fate and not self._over(name):
                self.fate[name] = self.fate[node.follows]

    def _look_at(self, node: Node) -> None:
        name = node.step.id
        self._follow(node)
        if not node.tolerated and (
            "failed" in self.ends[name].values() or self.fate.get(name) == "failed"
        ):
            self.failed = True
        if name in self.begun or name in self.released or self._over(name):
            return
        verdict = self._verdict(node)
        if verdict in ("failed", "skipped"):
            self.fate[name] = verdict
        elif verdict == "go":
            self.begun.add(name)
            if node.follows is None and not node.is_many:
                self.totals[name] = 1
            if node.chooses:
                self._release(node)

    def _verdict(self, node: Node) -> str:
        strict = [self._ends_of(name) for name in sorted(node.strict)]
        for ends in strict:
            for how in ends:
                if how != "won":
                    return how
        if not all(self._over(name) for name in node.strict):
            return "wait"
        counted = node.needs - node.strict
        ends = [how for name in counted for how in self._ends_of(name)]
        over = all(self._over(name) for name in counted)
        join = node.step.join
        if join in ("all", "best_effort"):
            return "go" if over else "wait"
        wanted = 1 if join == "any" else int(join)
        if ends.count("won") >= wanted:
            return "go"
        known = all(name in self.totals or name in self.fate for name in counted)
        coming = sum(
            self.totals.get(name, 0) - len(self.ends[name])
            for name in counted
            if name not in self.fate
        )
        if over or (known and ends.count("won") + coming < wanted):
            return "failed" if "failed" in ends else "skipped"
        return "wait"

    def _ends_of(self, name: str) -> list[str]:
        found = list(self.ends[name].values())
        return [*found, self.fate[name]] if name in self.fate else found

    def _release(self, node: Node) -> None:
        left = set(node.needs - node.strict)
        while left:
            name = left.pop()
            source = self.graph.nodes[name]
            if name in self.released or self._over(name) or source.kept:
                continue
            if not all(self._does_without(fed, source) for fed in source.feeds):
                continue
            self._live_when_released[name] = {
                int(found.split(".")[1]) for found in self.live() if found.startswith(f"{name}.")
            }
            if name not in self.begun or name in self.expanding():
                self.fate[name] = "skipped"
            self.released.add(name)
            left |= source.needs | ({source.follows} if source.follows else set())

    def _does_without(self, fed: str, source: Node) -> bool:
        node = self.graph.nodes[fed]
        if fed in self.released or self._over(fed):
            return True
        chosen = source.step.id in node.needs - node.strict and node.follows != source.step.id
        return fed in self.begun and chosen


@st.composite
def flows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Workflows of a few steps of every kind; each names some of the steps before it."""
    steps: list[dict[str, Any]] = []
    for number in range(draw(st.integers(2, 7))):
        names = [step["id"] for step in steps]
        step: dict[str, Any] = {"id": f"s{number}"}
        after = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else []
        many = [found["id"] for found in steps if "each" in found]
        kind = draw(st.sampled_from(["one", "one", "inputs", "list", "follow"]))
        if kind == "inputs":
            step["each"] = {"from": "inputs", "path": "list"}
        elif kind == "list" and names:
            step["each"] = {"from": draw(st.sampled_from(names)), "path": "list"}
        elif kind == "follow" and many:
            step["each"] = {"from": draw(st.sampled_from(many))}
        step["after"] = after
        strict = step["each"]["from"] if "path" in step.get("each", {}) else None
        counted = [name for name in after if name != strict]
        if counted:
            joins = ["all", "any", "best_effort", 1, len(counted)]
            if any(name in many for name in counted):
                joins.append(3)
            step["join"] = draw(st.sampled_from(joins))
        elif "each" in step:
            step["join"] = draw(st.sampled_from(["all", "best_effort"]))
        steps.append(step)
    return steps


class Run:
    """The fold and the model side by side."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self.story = Story()
        self.story.epoch()
        self.id = self.story.flow(*steps)
        self.flow = self.story.state.flows[self.id]
        self.model = Model(self.flow.graph)
        self.check()

    def check(self) -> None:
        model, state = self.model, self.story.state
        model.look()
        live = {name.removeprefix(f"{self.id}.") for name in state.tasks}
        assert live == model.live()
        assert {step for _, step in state.to_expand} == model.expanding()
        assert self.flow.open == len(live) + len(state.to_expand)
        assert (self.flow.failure is not None) == model.failed
        for task in state.tasks.values():
            assert (task.cancel is not None) == (task.step in model.released)
        for name, step in self.flow.steps.items():
            assert step.over == model._over(name)
            if step.fate:
                continue
            ends = [("won", step.results), ("failed", step.failures), ("skipped", step.skipped)]
            assert {index: how for how, found in ends for index in found} == model.ends[name]
        self._check_restored()

    def _check_restored(self) -> None:
        plain = plain_flow(self.flow)
        restored = restore_flow(plain)
        assert plain_flow(restored) == plain
        recount(restored)
        for name, step in self.flow.steps.items():
            if not (step.begun or step.over or step.released):
                assert restored.steps[name].tally == step.tally

    def choose(self, data: st.DataObject) -> bool:
        """One more thing happens. False: nothing can."""
        state = self.story.state
        things = [*sorted(state.tasks), *(f"+{step}" for _, step in sorted(state.to_expand))]
        if not things:
            return False
        thing = data.draw(st.sampled_from(things))
        if thing.startswith("+"):
            self._expand(thing[1:], data)
        else:
            self._end(thing, data)
        self.check()
        return True

    def _expand(self, name: str, data: st.DataObject) -> None:
        how = data.draw(st.sampled_from([0, 1, 2, 3, "failed", "skipped"]))
        event = Expanded(self.id, name, self.story.state.epoch)
        if how == "failed":
            event = Expanded(self.id, name, event.epoch, error=Failure("BadInput", "no list"))
            self.model.fate[name] = "failed"
        elif how == "skipped":
            event = Expanded(self.id, name, event.epoch, skipped="no")
            self.model.fate[name] = "skipped"
        else:
            event = Expanded(self.id, name, event.epoch, int(how))
            self.model.totals[name] = int(how)
        assert self.story.store("cb.run.acme.expanded.0", encode(event))

    def _end(self, task_id: str, data: st.DataObject) -> None:
        task = self.story.state.tasks[task_id]
        how = data.draw(st.sampled_from(["won", "won", "failed", "skipped"]))
        self.model.end(task.step, task.index, how)
        if how == "won":
            assert self.story.run(task_id)
        elif how == "failed":
            assert self.story.fail(task_id)
        else:
            event = Skipped(task_id, self.story.state.epoch, "no")
            assert self.story.store("cb.run.acme.skipped.0", encode(event))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=flows(), data=st.data())
def test_every_join_does_what_a_model_without_increments_says(
    steps: list[dict[str, Any]], data: st.DataObject
):
    run = Run(steps)
    while run.choose(data):
        pass
    assert not run.flow.open
    assert run.id in run.story.state.fresh
    assert run.story.again().tasks == {}
