"""The budgets of the settings, as the journal has them."""

from __future__ import annotations

from callboard_broker.wire import Limit, Quota
from callboard_config import BudgetLimit, Settings, TenantBudget, UnitQuota

__all__ = ["limits"]


def limits(settings: Settings) -> dict[str, Limit]:
    """What each budget of the settings allows, by key; see `wire.Budget`."""
    budgets = settings.budgets
    everywhere = budgets.global_limit()
    each = budgets.tenant_concurrency
    found = {
        "global": Limit(
            concurrency=everywhere,
            rate=budgets.global_rate,
            burst=budgets.global_burst,
            units=_quotas(budgets.global_units),
        ),
        "tenant": Limit(
            concurrency=everywhere if each == "auto" else each,
            rate=budgets.tenant_rate,
            burst=budgets.tenant_burst,
            units=_quotas(budgets.tenant_units),
            weight=budgets.tenant_weight,
            guaranteed=budgets.tenant_guaranteed,
            waiting=budgets.tenant_waiting,
        ),
    }
    for name, tenant in budgets.tenants.items():
        found[f"tenant/{name}"] = _limit(tenant)
        for capability, limit in tenant.capabilities.items():
            found[f"tenant/{name}/{capability}"] = _limit(limit)
    found |= {f"capability/{name}": _limit(limit) for name, limit in budgets.capabilities.items()}
    return found | {f"key/{name}": _limit(limit) for name, limit in budgets.keys.items()}


def _limit(said: BudgetLimit) -> Limit:
    tenant = said if isinstance(said, TenantBudget) else None
    return Limit(
        concurrency=said.concurrency,
        rate=said.rate,
        burst=said.burst,
        units=_quotas(said.units),
        weight=None if tenant is None else tenant.weight,
        guaranteed=None if tenant is None else tenant.guaranteed,
        waiting=None if tenant is None else tenant.waiting,
    )


def _quotas(units: dict[str, UnitQuota]) -> dict[str, Quota]:
    return {unit: Quota(quota.limit, quota.per) for unit, quota in units.items()}
