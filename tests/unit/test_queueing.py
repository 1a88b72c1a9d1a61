"""The queue against a reference that looks at everything: nothing beyond the limits, nothing that
could run is left; and its order where tenants compete.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from callboard_broker.rule import Life
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Budget, Limit, Quota, Terms
from callboard_router.agenda import Agenda, Limits
from callboard_router.budget import blocked, need_of
from callboard_router.desk import Desk, Policy
from callboard_router.dispatching import dispatches
from callboard_router.liveness import Liveness, Timing
from callboard_router.proposals import Proposals
from callboard_router.queueing import Waiting
from callboard_router.state import State, Task

TENANTS = ("acme", "blue", "coral")
CAPABILITIES = ("plan", "review", "review.python")
NAMES = ("openai", "search")
FLOWS = ("flow/7", "flow/8")


class Bench:
    """A desk with tasks on it, and what becomes of them; agents are what `slots` says."""

    def __init__(self, limits: dict[str, Limit], slots: dict[str, int]) -> None:
        state = State()
        self.waiting = Waiting(state.accounts)
        self.desk = Desk(
            state=state,
            subjects=Subjects(),
            policy=Policy(limits=limits),
            liveness=Liveness(Timing()),
            agenda=Agenda(state, Limits(lost=3, unstarted=20), self.waiting),
            proposals=Proposals(),
            secret=str,
        )
        self.at_ms = 1_000_000
        self.numbers = count(1)
        self.running: list[str] = []
        self.limit(base=limits)
        self.serve(slots)

    def limit(self, **fields: Any) -> None:
        self.desk.state.accounts.change(Budget(0, **fields), self.at_ms)

    def serve(self, slots: dict[str, int]) -> None:
        self.desk.capacity = {("shared", name): (most, 1) for name, most in slots.items()}
        self.desk.ready.update(self.desk.capacity)

    def post(self, tenant: str, capability: str = "plan", **fields: Any) -> Task:
        number = next(self.numbers)
        flow_keys = fields.pop("flow_keys", ())
        terms = fields.get("terms")
        task = Task(
            id=str(number),
            tenant=tenant,
            capability=capability,
            shard=0,
            order=number,
            since=self.at_ms,
            life=Life(),
            need=need_of(tenant, capability, terms, flow_keys=flow_keys),
            **fields,
        )
        self.desk.state.tasks[task.id] = task
        self.waiting.push(task)
        return task

    def dispatch(self, *, most: int = 1_000_000) -> list[Task]:
        """Dispatch what may go, and read it back."""
        found = []
        for task, placement in dispatches(self.desk, self.at_ms):
            self.desk.proposals.open_dispatch(task.id, task.need, placement.queue, placement.host)
            found.append(task)
            task.queue = placement.queue
            if len(found) == most:
                break
        for task in found:
            self.read_back(task)
        return found

    def read_back(self, task: Task) -> None:
        state, proposals = self.desk.state, self.desk.proposals
        task.life.state = "running"
        state.running[task.queue] += 1
        state.accounts.take(task.need, self.at_ms)
        proposals._open.pop(task.id)
        proposals.reserved.close(task.need)
        proposals.under_way[task.queue] -= 1
        self.running.append(task.id)

    def finish(self, name: str, used: dict[str, float] | None = None) -> None:
        state = self.desk.state
        self.running.remove(name)
        task = state.tasks.pop(name)
        state.running[task.queue] -= 1
        state.accounts.give_back(task.need, used, self.at_ms)

    # -- the reference

    def could_go(self) -> list[Task]:
        return [
            task
            for task in self.desk.state.tasks.values()
            if task.life.state == "waiting"
            and task.id not in self.desk.proposals
            and not task.paused
            and blocked(
                self.desk.state.accounts, self.desk.proposals.reserved, task.need, self.at_ms
            )
            is None
            and self.has_place(task.capability)
        ]

    def has_place(self, capability: str) -> bool:
        desk = self.desk
        while capability and not desk.capacity.get(("shared", capability), (0, 0))[0]:
            capability = capability.rpartition(".")[0]
        queue = ("shared", capability)
        busy = desk.state.running[queue] + desk.proposals.under_way[queue]
        return busy < desk.capacity.get(queue, (0, 0))[0]


concurrency = st.one_of(st.none(), st.integers(0, 4))
limit = st.builds(Limit, concurrency=concurrency, rate=st.sampled_from((None, None, 1.0, 5.0)))
tenant_limit = st.builds(
    Limit,
    concurrency=concurrency,
    weight=st.sampled_from((None, 1.0, 3.0)),
    guaranteed=st.sampled_from((None, 0, 2)),
)
keyed = st.builds(
    Limit,
    concurrency=concurrency,
    units=st.sampled_from(({}, {"tokens": Quota(10, 1)}, {"tokens": Quota(100)})),
)
budgets = st.one_of(
    st.dictionaries(st.sampled_from(("global", "capability/plan")), limit),
    st.dictionaries(
        st.sampled_from(("tenant", *(f"tenant/{name}" for name in TENANTS))), tenant_limit
    ),
    st.dictionaries(
        st.sampled_from((*(f"key/{name}" for name in NAMES), "tenant/acme/plan")), keyed
    ),
)
slots = st.dictionaries(st.sampled_from(CAPABILITIES), st.integers(0, 4))
terms = st.one_of(
    st.none(),
    st.builds(
        Terms,
        budgets=st.lists(st.sampled_from(NAMES), unique=True, max_size=2),
        units=st.sampled_from(({}, {"tokens": 4.0})),
    ),
)


class Queue(RuleBasedStateMachine):
    """Whatever happens, each dispatch is one that the reference would make as well."""

    @initialize(base=budgets, slots=slots)
    def begin(self, base: dict[str, Limit], slots: dict[str, int]):
        self.bench = Bench({"global": Limit(concurrency=5)} | base, {"plan": 3} | slots)
        self.bench.desk.state.accounts.bound("flow/7", 1)
        self.left: list[Task] = []

    @rule(
        tenant=st.sampled_from(TENANTS),
        capability=st.sampled_from(CAPABILITIES),
        terms=terms,
        flow=st.sampled_from((None, None, *FLOWS)),
        priority=st.integers(0, 9),
        times=st.integers(1, 3),
    )
    def post(
        self,
        tenant: str,
        capability: str,
        terms: Terms | None,
        flow: str | None,
        priority: int,
        times: int,
    ):
        for _ in range(times):
            flow_keys = () if flow is None else (flow,)
            self.bench.post(tenant, capability, terms=terms, flow_keys=flow_keys, priority=priority)

    @rule(most=st.sampled_from((1, 2, 1000)))
    def dispatch(self, most: int):
        bench, found = self.bench, []
        for task, placement in dispatches(bench.desk, bench.at_ms):
            assert task in bench.could_go()
            task.queue = placement.queue
            bench.desk.proposals.open_dispatch(task.id, task.need, placement.queue, None)
            found.append(task)
            if len(found) == most:
                break
        else:
            assert bench.could_go() == []
        self.left += found

    @rule(data=st.data())
    def read_back(self, data: st.DataObject):
        if self.left:
            task = self.left.pop(data.draw(st.integers(0, len(self.left) - 1)))
            self.bench.read_back(task)

    @rule(data=st.data(), used=st.sampled_from((None, {}, {"tokens": 1.0}, {"tokens": 9.0})))
    def finish(self, data: st.DataObject, used: dict[str, float] | None):
        if self.bench.running:
            self.bench.finish(data.draw(st.sampled_from(self.bench.running)), used)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject):
        tasks = self.bench.desk.state.tasks
        idle = [task.id for task in tasks.values() if task.life.state == "waiting"]
        idle = [name for name in idle if name not in self.bench.desk.proposals]
        if idle:
            del tasks[data.draw(st.sampled_from(idle))]

    @rule(ms=st.sampled_from((1, 100, 3000)))
    def pass_time(self, ms: int):
        self.bench.at_ms += ms

    @rule(slots=slots)
    def count_agents(self, slots: dict[str, int]):
        self.bench.serve(slots)

    @rule(changed=budgets)
    def set_budgets(self, changed: dict[str, Limit]):
        self.bench.limit(changed=changed)

    @rule(key=st.sampled_from(("global", "tenant", "key/openai", "tenant/acme")))
    def take_back(self, key: str):
        self.bench.limit(changed={key: None})

    @invariant()
    def nothing_is_forgotten(self):
        if hasattr(self, "bench"):
            tasks = self.bench.desk.state.tasks.values()
            names = {task.id for task in tasks if task.life.state == "waiting"}
            names -= {task.id for task in self.left}
            assert names <= self.bench.waiting._inside


Queue.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestQueue = Queue.TestCase


def flooded(bench: Bench, flood: int, late: int, *, arrives_ms: int) -> list[int]:
    """Ten agents, tasks of 5 ms: how long after their post the late ones end, in ms."""
    for _ in range(flood):
        bench.post("acme")
    begun = bench.at_ms
    ends: list[tuple[int, int, Task]] = []
    posted: set[str] = set()
    found: list[int] = []
    while len(found) < late:
        if not posted and bench.at_ms - begun >= arrives_ms:
            posted = {bench.post("coral").id for _ in range(late)}
        for task in bench.dispatch():
            heapq.heappush(ends, (bench.at_ms + 5, task.order, task))
        bench.at_ms += 1
        while ends and ends[0][0] <= bench.at_ms:
            task = heapq.heappop(ends)[2]
            bench.finish(task.id)
            if task.id in posted:
                found.append(bench.at_ms - task.since)
    return found


def test_a_flood_of_50_000_delays_anothers_ten_by_less_than_two_task_durations():
    bench = Bench({"global": Limit(concurrency=10)}, {"plan": 10})
    took = flooded(bench, 50_000, 10, arrives_ms=1000)
    assert max(took) <= 5 + 2 * 5 + 100
    assert max(took) <= 25, "five of the ten slots are its own within one task's duration"


def test_capacity_in_flight_follows_the_weights():
    weights = {"tenant/acme": Limit(weight=3.0), "tenant/blue": Limit(weight=1.0)}
    bench = Bench({"global": Limit(concurrency=8)} | weights, {"plan": 100})
    for _ in range(50):
        bench.post("acme")
        bench.post("blue")
    bench.dispatch()
    assert bench.desk.state.accounts.in_use["tenant/acme"] == 6
    for name in list(bench.running)[:5]:
        bench.finish(name)
        bench.dispatch()
        assert bench.desk.state.accounts.in_use["tenant/acme"] == 6


def test_the_guaranteed_minimum_comes_first_and_what_is_unused_is_borrowed():
    limits = {"global": Limit(concurrency=8), "tenant/blue": Limit(guaranteed=6, weight=0.5)}
    bench = Bench(limits, {"plan": 100})
    for _ in range(50):
        bench.post("acme")
    assert len(bench.dispatch()) == 8
    for _ in range(50):
        bench.post("blue")
    for _ in range(8):
        bench.finish(bench.running[0])
        bench.dispatch()
    in_use = bench.desk.state.accounts.in_use
    assert (in_use["tenant/blue"], in_use["tenant/acme"]) == (6, 2)


def test_a_level_of_priority_is_worth_ten_seconds_of_waiting():
    bench = Bench({"global": Limit(concurrency=1)}, {"plan": 9, "review": 9})
    old = bench.post("acme", priority=0)
    bench.at_ms += 89_000
    high = bench.post("acme", "review", priority=9)
    bench.at_ms += 2_000
    late = bench.post("acme", priority=9)
    order = []
    for _ in range(3):
        order += bench.dispatch()
        bench.finish(bench.running[0])
    assert order == [high, old, late]


def test_a_named_budget_without_room_holds_up_nothing_else():
    bench = Bench({"global": Limit(concurrency=9), "key/x": Limit(concurrency=1)}, {"plan": 9})
    held = [bench.post("acme", terms=Terms(budgets=["x"]), priority=9) for _ in range(3)]
    free = bench.post("acme")
    assert bench.dispatch() == [held[0], free]
    assert bench.dispatch() == []
    bench.finish(held[0].id)
    assert bench.dispatch() == [held[1]]


def test_a_task_that_asks_for_more_than_there_ever_is_holds_up_nothing():
    limits = {"global": Limit(units={"tokens": Quota(10, 1)})}
    bench = Bench(limits, {"plan": 9})
    never = bench.post("acme", terms=Terms(units={"tokens": 11.0}), priority=9)
    small = bench.post("acme", terms=Terms(units={"tokens": 10.0}))
    assert bench.dispatch() == [small]
    bench.at_ms += 5000
    assert bench.dispatch() == []
    bench.limit(changed={"global": Limit(units={"tokens": Quota(20, 1)})})
    assert bench.dispatch() == [never]


def test_what_waits_for_a_rate_says_when_to_ask_again():
    bench = Bench({"global": Limit(rate=10, burst=1)}, {"plan": 9})
    for _ in range(3):
        bench.post("acme")
    assert len(bench.dispatch()) == 1
    assert bench.waiting.next_ms == bench.at_ms + 100
    bench.at_ms += 99
    assert bench.dispatch() == []
    bench.at_ms += 1
    assert len(bench.dispatch()) == 1


def test_a_tenant_with_very_many_kinds_of_tasks_gets_them_all_done():
    bench = Bench(
        {"global": Limit(concurrency=2), "tenant/acme": Limit(concurrency=1)}, {"plan": 9}
    )
    names = {bench.post("acme", terms=Terms(budgets=[f"k{n}"])).id for n in range(300)}
    mine = bench.post("coral")
    assert mine in bench.dispatch()
    while bench.running:
        name = bench.running[0]
        names.discard(name)
        bench.finish(name)
        bench.dispatch()
    assert not names
    assert len(bench.waiting) == 0


def test_what_has_gone_meanwhile_is_passed_over_and_forgotten():
    bench = Bench({"global": Limit(concurrency=1)}, {"plan": 9})
    names = [bench.post("acme").id for _ in range(50)]
    for name in names[:-1]:
        del bench.desk.state.tasks[name]
    assert [task.id for task in bench.dispatch()] == [names[-1]]
    assert len(bench.waiting) == 0


def test_a_task_that_is_pushed_again_while_it_waits_is_there_once():
    bench = Bench({}, {})
    task = bench.post("acme")
    bench.waiting.push(task)
    lane = bench.waiting.head()
    assert lane is not None
    bench.waiting.take(lane, served=True)
    assert (len(bench.waiting), lane.tasks) == (0, [])


def test_a_task_whose_dispatch_is_under_way_is_not_dispatched_again():
    bench = Bench({}, {"plan": 9})
    task = bench.post("acme")
    for found, placement in dispatches(bench.desk, bench.at_ms):
        bench.desk.proposals.open_dispatch(found.id, found.need, placement.queue, placement.host)
    bench.waiting.push(task)  # as when it was paused and resumed before that was read back
    assert list(dispatches(bench.desk, bench.at_ms)) == []
    assert len(bench.waiting) == 0


def test_a_task_that_was_put_off_after_it_was_queued_is_not_dispatched_before_its_time():
    bench = Bench({}, {"plan": 9})
    task = bench.post("acme")
    bench.desk.agenda.now_ms = bench.at_ms
    task.not_before = bench.at_ms + 1
    assert bench.dispatch() == []
    bench.desk.agenda.now_ms += 1
    bench.waiting.push(task)
    assert bench.dispatch() == [task]
