"""agent_routing_rules.yaml: whose hosts work for whom."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from callboard_config.section import Name, Section, TenantName, disagreement

__all__ = ["AgentRouting"]


class AgentRouting(Section):
    """What agent_routing_rules.yaml holds."""

    pools: dict[Name, Annotated[tuple[TenantName, ...], Field(strict=False)]]
    """The tenants that each pool of hosts serves. A host sees only its pool's work. A tenant
    that stands in none is served by the pool `shared`."""

    @model_validator(mode="after")
    def _a_tenant_has_one_pool(self) -> Self:
        seen: dict[str, str] = {}
        for pool, tenants in self.pools.items():
            for tenant in tenants:
                if tenant in seen:
                    raise disagreement(
                        f"tenant {tenant} is listed twice, and its work goes to one pool: "
                        "keep one entry",
                        f"pools.{seen[tenant]}",
                        f"pools.{pool}",
                    )
                seen[tenant] = pool
        return self
