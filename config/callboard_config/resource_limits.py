"""resource_limits.yaml: how much may run at once, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from callboard_config.cpus import auto_concurrency
from callboard_config.section import Section, TenantName

__all__ = ["AgentSettings", "BudgetSettings", "ResourceLimits", "TenantBudget"]

Attempts = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=2_592_000)]


class TenantBudget(Section):
    """The budget of one tenant."""

    concurrency: Attempts
    """Attempts of this tenant that may run at once."""


class BudgetSettings(Section):
    """The budgets that hold until the router records others (`callboard budget set`)."""

    global_concurrency: Literal["auto"] | Attempts
    """Attempts that may run at once on this board. `auto`: from the CPUs that this process may
    use, see `auto_concurrency`."""

    tenant_concurrency: Literal["auto"] | Attempts
    """The same for each tenant without an entry of its own. `auto`: as many as globally, since
    the fair queue already shares the capacity between tenants that compete."""

    tenants: dict[TenantName, TenantBudget]
    """Tenants whose budget differs."""

    def global_limit(self) -> int:
        """Return the attempts that may run at once, with `auto` worked out on this machine."""
        if self.global_concurrency == "auto":
            return auto_concurrency()
        return self.global_concurrency

    def tenant_limit(self, tenant: str) -> int:
        """Return the attempts of `tenant` that may run at once."""
        if tenant in self.tenants:
            return self.tenants[tenant].concurrency
        if self.tenant_concurrency == "auto":
            return self.global_limit()
        return self.tenant_concurrency


class AgentSettings(Section):
    """What holds for an agent that does not say otherwise in `@agent(...)`."""

    slots_inline: Annotated[int, Field(ge=1, le=100_000)]
    """Attempts that one host runs at once on its event loop. They only wait, so many fit."""

    slots_thread: Annotated[int, Field(ge=1, le=10_000)]
    """Attempts that one host runs at once in threads; each costs a stack and shares the GIL."""

    timeout_seconds: Seconds
    """Seconds that one attempt may run. Long enough for a slow LLM call with tools."""

    drain_seconds: Seconds
    """Seconds that a host waits on SIGTERM for running attempts before it hands them back.
    Equals Kubernetes' own grace period, after which it kills."""


class ResourceLimits(Section):
    """What resource_limits.yaml holds."""

    budgets: BudgetSettings
    agents: AgentSettings
