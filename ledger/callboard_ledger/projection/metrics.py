"""The metrics of a projector: how far behind the journal its database is, and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from callboard_broker.exposition import OnLoop
from callboard_ledger.projection.delivery import Standing

__all__ = ["observe"]


def observe(
    standing: Standing, last: Callable[[], Awaitable[int]], registry: CollectorRegistry
) -> None:
    """Show how it does. last: the journal's last sequence. Call it on its loop."""

    async def gather() -> list[Metric]:
        lag = await last() - standing.position
        gauges = {
            "position": ("The journal's message that was written last", standing.position),
            "lag_events": ("Messages of the journal not yet written", lag),
            "parked": ("Rows that the database refuses", standing.parked),
            "ok": ("1: the database takes what it is given; 0: see `status`", not standing.problem),
        }
        metrics: list[Metric] = [
            GaugeMetricFamily(f"callboard_projector_{name}", said, value)
            for name, (said, value) in gauges.items()
        ]
        counters = {
            "rows": ("Rows written", standing.written),
            "retries": ("Calls that failed and were tried again", standing.retries),
        }
        metrics += [
            CounterMetricFamily(f"callboard_projector_{name}", said, value)
            for name, (said, value) in counters.items()
        ]
        return metrics

    registry.register(OnLoop(gather))
