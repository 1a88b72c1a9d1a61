"""What processes show to Prometheus: few labels, and only while somebody wants it."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily

from callboard_agents.metrics import HostMetrics
from callboard_broker.errors import BadInput
from callboard_broker.exposition import Bounded, OnLoop, new_registry, shown
from callboard_broker.wire import Failure, Limit, Outcome, Usage, encode
from callboard_router.desk import Policy
from callboard_router.metrics import observe
from tests.scraping import Samples, free_endpoint, scrape
from tests.simulation.leader import Leader


async def scraped(registry: CollectorRegistry) -> Samples:
    endpoint = free_endpoint()
    async with shown(endpoint, registry):
        return await scrape(endpoint)


async def test_an_endpoint_shows_the_process_and_what_its_loop_gathers():
    async def gather() -> list[Metric]:
        asyncio.get_running_loop()
        return [GaugeMetricFamily("callboard_things", "Things", 7)]

    registry = new_registry()
    registry.register(OnLoop(gather))
    found = await scraped(registry)
    assert found["callboard_things",] == 7
    assert found["process_resident_memory_bytes",] > 1e6


async def test_a_taken_port_is_named():
    endpoint = free_endpoint()
    async with shown(endpoint, new_registry()):
        with pytest.raises(BadInput, match=str(endpoint.port)):
            async with shown(endpoint, new_registry()):
                pass


def test_names_beyond_a_number_are_one_label():
    name = Bounded(2)
    assert [name(one) for one in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]


def ended(led: Leader, task: str, seconds: float) -> None:
    """Its handler began ten milliseconds after the dispatch and ran so long."""
    dispatch = led.dispatched[task]
    start = led.at_ms + 10
    end = start + int(seconds * 1000)
    outcome = Outcome(task, dispatch.attempt, dispatch.secret, "h", start, end)
    led.store("cb.run.acme.outcome.0", encode(outcome))


async def test_the_active_router_shows_what_waits_runs_and_has_ended():
    led = Leader(Policy(limits={"global": Limit(concurrency=2)})).lead()
    led.host("h", "plan", slots=9)
    registry = CollectorRegistry()
    observe(led.engine, registry, lambda: led.at_ms)
    tasks = [led.post() for _ in range(3)]
    led.post(capability="nobody.does")
    led.now += 2.0
    led.beat()
    led.turn()
    found = await scraped(registry)
    assert found["callboard_budget_in_use", "global"] == 2
    assert found["callboard_budget_limit", "global"] == 2
    assert found["callboard_queue_held", "plan", "shared"] == 1
    assert found["callboard_queue_running", "plan", "shared"] == 2
    ended(led, tasks[0], 0.5)
    ended(led, tasks[0], 0.5)
    led.finish(tasks[1], error=Failure("Oops", "no", final=True))
    led.turn()
    found = await scraped(registry)
    assert found["callboard_router_active",] == 1
    assert found["callboard_tasks", "running"] == 1
    assert found["callboard_tasks_ended_total", "succeeded"] == 1
    assert found["callboard_tasks_ended_total", "failed"] == 1
    assert found["callboard_queue_waiting", "nobody.does", "shared"] == 1
    assert found["callboard_queue_oldest_seconds", "nobody.does", "shared"] == 2
    assert found["callboard_outcomes_fenced_total",] == 1
    assert found["callboard_task_wait_seconds_count", "plan"] == 3
    assert found["callboard_task_handoff_seconds_sum", "plan"] == pytest.approx(0.01)
    assert found["callboard_task_run_seconds_sum", "plan"] == 0.5


async def test_a_standby_shows_only_that_it_is_one():
    led = Leader(Policy(limits={}))
    registry = CollectorRegistry()
    observe(led.engine, registry, lambda: led.at_ms)
    led.post()
    found = await scraped(registry)
    assert found["callboard_router_active",] == 0
    assert found["callboard_router_position",] == 1
    assert ("callboard_tasks", "waiting") not in found


async def test_what_children_have_used_is_shown_in_sum_and_at_its_peak():
    registry = new_registry()
    metrics = HostMetrics(registry, lambda: None, lambda: 0)
    for cpu_s, memory_mb in ((0.5, 20.0), (1.0, 10.0)):
        usage = Usage(cpu_s, memory_mb, 2.0)
        metrics.ended("heavy", Outcome("1", 1, "s", "host", 0, 2000, usage=usage))
    found = await scraped(registry)
    assert found["callboard_agent_cpu_seconds_total", "heavy"] == 1.5
    assert found["callboard_agent_peak_memory_bytes", "heavy"] == 20 * 2**20
