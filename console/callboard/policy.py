"""What the settings say to a router."""

from __future__ import annotations

from callboard.budgets import limits
from callboard_broker.wire import Retry
from callboard_config import Settings
from callboard_router.desk import Policy
from callboard_router.liveness import Timing
from callboard_router.routing import routing_from

__all__ = ["policy_of"]


def policy_of(settings: Settings) -> Policy:
    """The policy of a board with these settings."""
    lease, retry = settings.lease, settings.retry
    return Policy(
        limits=limits(settings),
        timing=Timing(
            beat=lease.beat_seconds,
            suspect=lease.suspect_seconds,
            lease=lease.lease_seconds,
            start=lease.start_seconds,
        ),
        routing=routing_from(settings),
        pools={tenant: pool for pool, tenants in settings.pools.items() for tenant in tenants},
        lost_limit=lease.lost_limit,
        retry=Retry(
            attempts=retry.attempts,
            delay=retry.delay,
            factor=retry.factor,
            max_delay=retry.max_delay,
        ),
        ageing=settings.queue.ageing_seconds,
        max_items=settings.workflow.max_items,
        standby=settings.router.standby_seconds,
        unresolved=settings.router.unresolved_seconds,
    )
