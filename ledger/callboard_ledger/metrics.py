"""The metrics of a ledger: how far it is behind the journal, and whether the audit log is sound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from callboard_broker.exposition import OnLoop
from callboard_ledger.views import PositionView

__all__ = ["observe"]


def observe(position: Callable[[], Awaitable[PositionView]], registry: CollectorRegistry) -> None:
    """Show where the ledger is. Call it on its loop."""

    async def gather() -> list[Metric]:
        found = await position()
        at, last = found.position, found.last
        gauges = {
            "position": ("The journal's message that was folded last", at),
            "lag_events": ("Messages of the journal not yet folded", last - at),
            "unsaved_events": ("Folded messages not yet in the store", at - found.saved),
            "unaudited_events": ("Messages not yet in the audit log", last - found.audited),
            "log_lag_messages": ("Messages of LOGS not yet read", found.logs_last - found.logs),
            "audit_ok": ("1: everything read is audited; 0: see `status`", not found.audit_problem),
        }
        metrics: list[Metric] = [
            GaugeMetricFamily(f"callboard_ledger_{name}", said, value)
            for name, (said, value) in gauges.items()
        ]
        counters = {
            "void": ("Messages that changed nothing", found.void),
            "malformed": ("Messages that could not be read", found.malformed),
        }
        metrics += [
            CounterMetricFamily(f"callboard_ledger_{name}", said, value)
            for name, (said, value) in counters.items()
        ]
        return metrics

    registry.register(OnLoop(gather))
