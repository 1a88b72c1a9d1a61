"""The budgets of the settings, as the journal has them."""

from __future__ import annotations

from callboard_config import Settings

__all__ = ["limits"]


def limits(settings: Settings) -> dict[str, int]:
    """`{"global": 8, "tenant": 8, "tenant/acme": 2}`: attempts that may run at once."""
    budgets = settings.budgets
    everywhere = budgets.global_limit()
    each = budgets.tenant_concurrency
    named = {f"tenant/{name}": budgets.tenant_limit(name) for name in budgets.tenants}
    return {"global": everywhere, "tenant": everywhere if each == "auto" else each, **named}
