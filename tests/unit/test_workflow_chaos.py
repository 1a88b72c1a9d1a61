"""Workflows with everything in play, driven at random to their end by one engine."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard_broker.wire import Failure, Limit, Retry, Settled
from callboard_router.desk import Policy
from callboard_router.flow import Flow, plain_flow, restore_flow
from callboard_router.state import State
from tests.simulation.leader import Leader
from tests.simulation.story import Story


def some_steps(random: Random, depth: int = 0) -> list[dict[str, Any]]:
    """A few steps of every kind; each names some of those before it."""
    steps: list[dict[str, Any]] = []
    for number in range(random.randint(1, 5)):
        names = [step["id"] for step in steps]
        many = [step["id"] for step in steps if "each" in step]
        kind = random.choice(["work"] * 5 + ["gate", "signal"] + ["flow"] * (2 - min(depth, 2)))
        step: dict[str, Any] = {"id": f"s{number}", "capability": "plan"}
        after = random.sample(names, min(len(names), random.randint(0, 2)))
        if kind == "work":
            step["payload"] = {"in": {"from": "inputs"}, "up": [{"from": name} for name in after]}
            if random.random() < 0.4:
                step["compensate"] = {"capability": "plan", "payload": {"from": f"s{number}"}}
        else:
            step["capability"] = ""
        if kind == "gate":
            step["gate"] = {"prompt": "?"}
        if kind == "signal":
            step["gate"] = {"kind": "signal", "signal": random.choice(["go", "on"])}
        if kind == "flow":
            step["flow"] = {"steps": some_steps(random, depth + 1)}
            step["payload"] = {"list": [1, 2], "flag": random.random() < 0.5}
        if random.random() < 0.3:
            step["each"] = {"from": "inputs", "path": "list"}
        elif many and random.random() < 0.5:
            step["each"] = {"from": random.choice(many)}
        if "each" in step and kind in ("work", "flow") and random.random() < 0.4:
            step["at_once"] = random.randint(1, 2)
        if after:
            step["after"] = after
            step["join"] = random.choice(["all", "any", "best_effort", len(after)])
        if random.random() < 0.3:
            source = random.choice([{"from": "inputs", "path": "flag"}, {"from": "inputs"}])
            test = {"equals": True} if "path" in source else {"exists": True}
            step["when"] = {"value": source} | test
        steps.append(step)
    return steps


class Chaos:
    """One board, on which anything may happen next."""

    def __init__(self, random: Random) -> None:
        self.random = random
        limits = {"global": Limit(concurrency=3), "tenant": Limit()}
        policy = Policy(limits=limits, retry=Retry(attempts=random.randint(1, 2), delay=0.0))
        self.leader = Leader(policy).lead()
        self.leader.host("h", "plan", slots=5)
        self.ended: dict[str, list[str]] = {}

    @property
    def state(self) -> State:
        return self.leader.engine.state

    def turn(self) -> None:
        for event in self.leader.turn():
            if isinstance(event, Settled):
                self.ended.setdefault(event.task, []).append(event.state)

    def act(self, *, mischief: bool) -> None:
        random, state = self.random, self.state
        running = [task for task in state.tasks.values() if task.life.state == "running"]
        if mischief and random.random() < 0.35:
            self._mischief()
        elif running:
            self._report(random.choice(running).id, mischief=mischief)
        else:
            self._decide_gates()
        self.leader.now += 0.05
        self.leader.beat()
        self.turn()

    def _report(self, task_id: str, *, mischief: bool) -> None:
        task = self.state.tasks[task_id]
        error = None
        if task.cancel is not None and self.random.random() < 0.7:
            error = Failure("Cancelled", "stopped", final=True)
        elif mischief and self.random.random() < 0.25:
            error = Failure("Boom", "no")
        self.leader.finish(task_id, {"of": task_id, "long": "x" * 10}, error=error)

    def _decide_gates(self) -> None:
        for task in list(self.state.tasks.values()):
            if task.is_gate and task.flow is not None and task.decided is None:
                said = self.state.flows[task.flow].graph.nodes[task.step].step.gate
                if said is not None and said.kind == "approval":
                    self.leader.command("approve", task.id)
                elif said is not None:
                    self.leader.command("signal", task.flow, name=said.signal, payload={"v": 1})
        for flow in list(self.state.flows.values()):
            if flow.paused:
                self.leader.command("resume", flow.id)
        for task in list(self.state.tasks.values()):
            if task.paused:
                self.leader.command("resume", task.id)

    def _mischief(self) -> None:
        random, state = self.random, self.state
        names = [*state.flows, *state.tasks]
        dead = list(state.dead_flows)
        if dead and random.random() < 0.6:
            body: dict[str, Any] = {}
            name = random.choice(dead)
            if random.random() < 0.4:
                body["source"] = random.choice(list(state.dead_flows[name][1].steps))
            if random.random() < 0.3:
                body["payload"] = {"flag": random.random() < 0.5}
            self.leader.command("resume", name, **body)
        elif names:
            verb = random.choice(["cancel", "pause", "resume", "approve", "signal"])
            body = {"name": "go"} if verb == "signal" else {}
            if verb == "approve":
                body["approved"] = random.random() < 0.7
            self.leader.command(verb, random.choice(names), **body)

    def check(self) -> None:
        state = self.state
        for flow in state.flows.values():
            self._check_open(flow)
            plain = plain_flow(flow)
            assert plain_flow(restore_flow(plain)) == plain

    def _check_open(self, flow: Flow) -> None:
        state = self.state
        tasks = [task for task in state.tasks.values() if task.flow == flow.id]
        lists = [name for found, name in state.to_expand if found == flow.id]
        assert flow.open == len(tasks) + len(lists) + len(flow.nested)
        for inner in flow.nested:
            assert inner in state.flows


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(seed=st.integers(0, 10**9))
def test_every_workflow_comes_to_its_end_whatever_happens(seed: int):
    random = Random(seed)
    chaos = Chaos(random)
    posted = [
        chaos.leader.flow(
            *some_steps(random), inputs={"list": [1, 2], "flag": True}, at_once=at_once
        )
        for at_once in (2, 5)
    ]
    chaos.turn()
    for _ in range(random.randint(5, 80)):
        chaos.act(mischief=True)
        chaos.check()
    for _ in range(2000):
        if not chaos.state.flows and not chaos.state.tasks:
            break
        chaos.act(mischief=False)
    state = chaos.state
    assert not state.flows
    assert not state.tasks
    assert not state.to_expand
    assert not state.waiting
    assert not any(state.accounts.in_use.values())
    assert state.accounts._own == {}
    for flow in posted:
        assert chaos.ended[flow], "one terminal event a generation"
    assert len(_again(chaos.leader).dead_flows) == len(state.dead_flows)


def _again(leader: Leader) -> State:
    story = Story()
    for subject, data in leader.journal:
        story.store(subject, data)
    return story.state
