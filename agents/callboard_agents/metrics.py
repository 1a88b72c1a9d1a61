"""The metrics of an agent host: what it offers and uses, and what became of its attempts.

What the host has at a moment is its last beat, which comes from a thread of its own: a handler that
blocks the host's loop stands in the metrics as that, and does not hold up the scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from callboard_broker.exposition import BUCKETS, Bounded
from callboard_broker.wire import Beat, Outcome

__all__ = ["HostMetrics", "observe_pool"]

_MIB = 1024 * 1024
_RESULTS = 50


def observe_pool(registry: CollectorRegistry, processes: Callable[[], int]) -> None:
    """Show what a supervisor has. processes: those that live; asked from the thread of a scrape."""
    gauge = Gauge("callboard_pool_processes", "Agent processes that live", registry=registry)
    gauge.set_function(processes)


class HostMetrics(Collector):
    """Of one host. beat: its last one; None before the first. unstored: outcomes on their way."""

    def __init__(
        self,
        registry: CollectorRegistry,
        beat: Callable[[], Beat | None],
        unstored: Callable[[], int],
    ) -> None:
        self._beat = beat
        self._unstored = unstored
        self._name, self._result = Bounded(), Bounded(_RESULTS)
        self._ended = Counter(
            "callboard_agent_attempts",
            "Attempts by result: succeeded, or the type of the error",
            ("capability", "result"),
            registry=registry,
        )
        self._run = Histogram(
            "callboard_agent_run_seconds",
            "From a handler's start to its end",
            ("capability",),
            registry=registry,
            buckets=BUCKETS,
        )
        self._cpu = Counter(
            "callboard_agent_cpu_seconds",
            "CPU of handlers in child processes and threads",
            ("capability",),
            registry=registry,
        )
        self._peak = Gauge(
            "callboard_agent_peak_memory_bytes",
            "Most memory that a handler in a child process has used since this host began",
            ("capability",),
            registry=registry,
        )
        self._peaks: dict[str, float] = {}
        registry.register(self)

    def ended(self, capability: str, outcome: Outcome) -> None:
        """An attempt is over. capability: the agent's. On the host's loop."""
        name = self._name(capability)
        result = "succeeded" if outcome.error is None else self._result(outcome.error.type)
        self._ended.labels(name, result).inc()
        self._run.labels(name).observe(max(0, outcome.ended_at - outcome.started_at) / 1000)
        usage = outcome.usage
        if usage is not None:
            self._cpu.labels(name).inc(usage.cpu_s)
            if usage.memory_mb > self._peaks.get(name, 0.0):
                self._peaks[name] = usage.memory_mb
                self._peak.labels(name).set(usage.memory_mb * _MIB)

    def collect(self) -> Iterable[Metric]:
        """From the thread of a scrape."""
        yield GaugeMetricFamily(
            "callboard_host_unstored_outcomes", "Outcomes not yet acknowledged", self._unstored()
        )
        beat = self._beat()
        if beat is None:
            return
        gauges = {
            "running": ("Attempts that it has", len(beat.holds)),
            "cpu_cores": ("Cores that it uses, with its child processes", beat.cpu),
            "memory_bytes": ("Memory that it has, with its child processes", beat.memory_mb * _MIB),
            "free_memory_bytes": ("Free memory of its machine or cgroup", beat.free_mb * _MIB),
            "allocated_cores": ("Cores promised to its attempts", beat.allocated_cpu),
            "allocated_bytes": ("Memory promised to its attempts", beat.allocated_mb * _MIB),
            "blocked_seconds": ("How long its event loop has not answered", beat.blocked),
        }
        for name, (said, value) in gauges.items():
            yield GaugeMetricFamily(f"callboard_host_{name}", said, value)
        slots = GaugeMetricFamily(
            "callboard_host_slots", "Attempts at once of an agent", labels=["capability"]
        )
        free = GaugeMetricFamily(
            "callboard_host_free_slots", "Attempts more that it takes now", labels=["capability"]
        )
        for offer in beat.offers:
            if self._name(offer.capability) == offer.capability:
                slots.add_metric([offer.capability], offer.slots)
                free.add_metric([offer.capability], offer.free)
        layer = GaugeMetricFamily(
            "callboard_host_isolation", "1 for each layer of isolation in force", labels=["layer"]
        )
        for name in beat.layers:
            layer.add_metric([name], 1)
        yield from (slots, free, layer)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what there is, is known at a scrape."""
        return ()
