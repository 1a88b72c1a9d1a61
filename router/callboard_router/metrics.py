"""The metrics of a router: what it decides, and what waits. Only the active one shows any of it.

The others fold the same journal; were they to show it too, a sum over all routers would count
everything twice. What was folded before a router began to lead is not counted again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from callboard_broker.exposition import BUCKETS, Bounded, OnLoop
from callboard_broker.wire import Dispatch, Event, Lost, Outcome, Retrying
from callboard_router.engine import Engine
from callboard_router.tenure import Role

__all__ = ["observe"]

_KEYS = 500
_HELD_MOST = 100_000


def observe(engine: Engine, registry: CollectorRegistry, clock: Callable[[], int]) -> None:
    """Show what this router does. clock: the server's, in milliseconds. Call it on its loop."""
    metrics = _RouterMetrics(engine, registry, clock)
    engine.observer = metrics.saw
    registry.register(OnLoop(metrics.gather))


class _RouterMetrics:
    def __init__(
        self, engine: Engine, registry: CollectorRegistry, clock: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._name = Bounded()
        self._key = Bounded(_KEYS)
        self._dispatched: dict[str, tuple[int, int, str]] = {}
        self._wait = _histogram(registry, "wait", "From when a task could run to its dispatch")
        self._handoff = _histogram(registry, "handoff", "From a dispatch to its handler's start")
        self._run = _histogram(registry, "run", "From a handler's start to its end")
        self._again = Counter(
            "callboard_attempts_repeated",
            "Attempts that another one follows: lost with their host, never begun, or failed",
            ("capability", "why"),
            registry=registry,
        )
        self._fenced = Counter(
            "callboard_outcomes_fenced",
            "Outcomes that came after their attempt was void or over",
            registry=registry,
        )

    # -- what is counted as it happens

    def saw(self, event: Event, counted: bool) -> None:  # noqa: FBT001  one call for each event
        """An event of the journal, read by the active router."""
        if isinstance(event, Dispatch):
            if counted:
                self._saw_dispatch(event)
        elif isinstance(event, Outcome):
            if counted:
                self._saw_outcome(event)
            else:
                self._fenced.inc()
        elif counted and isinstance(event, Lost):
            _, _, name = self._dispatched.pop(event.task, (0, 0, "unknown"))
            self._again.labels(name, "lost" if event.started else "unstarted").inc()
        elif counted and isinstance(event, Retrying):
            task = self._engine.state.tasks[event.task]
            self._again.labels(self._name(task.capability), "failed").inc()

    def _saw_dispatch(self, event: Dispatch) -> None:
        state = self._engine.state
        task = state.tasks[event.task]
        name = self._name(task.capability)
        if len(self._dispatched) < _HELD_MOST:
            self._dispatched[event.task] = (event.attempt, state.at_ms, name)
        life = task.life
        if not (life.lost or life.unstarted or life.errors):
            ready = max(task.since, task.not_before)
            self._wait.labels(name).observe(max(0, state.at_ms - ready) / 1000)

    def _saw_outcome(self, event: Outcome) -> None:
        found = self._dispatched.pop(event.task, None)
        if found is None or found[0] != event.attempt or not event.started_at:
            return
        _, at_ms, name = found
        self._handoff.labels(name).observe(max(0, event.started_at - at_ms) / 1000)
        self._run.labels(name).observe(max(0, event.ended_at - event.started_at) / 1000)

    # -- what there is at a moment

    async def gather(self) -> list[Metric]:
        """On the router's loop, at each scrape."""
        return list(self._gather())

    def _gather(self) -> Iterator[Metric]:
        engine, state = self._engine, self._engine.state
        leads = engine.tenure.role is Role.LEADER
        yield GaugeMetricFamily("callboard_router_active", "1: it decides; 0: standby", leads)
        yield GaugeMetricFamily(
            "callboard_router_position", "The journal's message that was folded last", state.seq
        )
        if not leads:
            return
        yield from self._tasks()
        yield from self._budgets()
        yield from self._queues()
        hosts = GaugeMetricFamily("callboard_hosts", "Hosts that are heard", labels=["pool"])
        counts: dict[str, int] = {}
        for pool, _name in engine.desk.liveness.hosts:
            counts[self._name(pool)] = counts.get(self._name(pool), 0) + 1
        for pool, count in counts.items():
            hosts.add_metric([pool], count)
        yield hosts

    def _tasks(self) -> Iterator[Metric]:
        state = self._engine.state
        now = GaugeMetricFamily("callboard_tasks", "Tasks that live", labels=["state"])
        now.add_metric(["waiting"], sum(state.waiting.values()))
        now.add_metric(["running"], sum(state.running.values()))
        yield now
        yield GaugeMetricFamily("callboard_workflows", "Workflows that live", len(state.flows))
        of_tenants = GaugeMetricFamily(
            "callboard_tenant_waiting", "Tasks of a tenant that wait", labels=["tenant"]
        )
        yield _summed(of_tenants, ((self._key(one), n) for one, n in state.waiting.items()))
        tasks = CounterMetricFamily("callboard_tasks_ended", "Tasks by end", labels=["state"])
        flows = CounterMetricFamily(
            "callboard_workflows_ended", "Workflows by end", labels=["state"]
        )
        for end, count in state.finished.items():
            family = flows if end.startswith("flow/") else tasks
            family.add_metric([end.removeprefix("flow/")], count)
        yield from (tasks, flows)

    def _budgets(self) -> Iterator[Metric]:
        accounts = self._engine.state.accounts
        used = GaugeMetricFamily(
            "callboard_budget_in_use", "Attempts under way that a budget counts", labels=["key"]
        )
        limit = GaugeMetricFamily(
            "callboard_budget_limit", "How many attempts a budget allows", labels=["key"]
        )
        for key in {"global", *accounts.in_use}:
            label, rule = self._key(key), accounts.rule(key)
            if label == key and rule is not None and rule.concurrency < sys.maxsize:
                used.add_metric([key], accounts.in_use.get(key, 0))
                limit.add_metric([key], rule.concurrency)
        yield from (used, limit)

    def _queues(self) -> Iterator[Metric]:
        labels = ["pool", "capability"]
        families = {
            "waiting": "Tasks that wait for an agent, a slot or their turn",
            "held": "Tasks that wait for a budget",
            "oldest": "Seconds that the first of the waiting ones has waited",
            "running": "Attempts under way",
            "slots": "Attempts that the live hosts take at once",
            "hosts": "Live hosts",
        }
        found = {
            name: GaugeMetricFamily(
                f"callboard_queue_{name}{'_seconds' if name == 'oldest' else ''}",
                said,
                labels=labels,
            )
            for name, said in families.items()
        }
        for queue in self._engine.backlog(self._clock()):
            if self._name(queue.capability) != queue.capability:
                continue
            values = {
                "waiting": queue.waiting,
                "held": queue.held,
                "oldest": queue.oldest_ms / 1000,
                "running": queue.running,
                "slots": queue.slots,
                "hosts": queue.hosts,
            }
            for name, value in values.items():
                found[name].add_metric([queue.pool, queue.capability], value)
        yield from found.values()


def _histogram(registry: CollectorRegistry, name: str, said: str) -> Histogram:
    return Histogram(
        f"callboard_task_{name}_seconds", said, ("capability",), registry=registry, buckets=BUCKETS
    )


def _summed(family: GaugeMetricFamily, values: Iterable[tuple[str, int]]) -> GaugeMetricFamily:
    """One sample of each label: what goes as `other` is added up."""
    sums: dict[str, int] = {}
    for label, value in values:
        sums[label] = sums.get(label, 0) + value
    for label, value in sums.items():
        family.add_metric([label], value)
    return family
