"""agent_routing_rules.yaml: whose hosts work for whom, and what routing adds to a task."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler, WrapValidator

from callboard_config.section import Name, Section, TenantName, disagreement

__all__ = ["AgentRouting", "NeedsRule", "RoutingRule", "ScoreSettings", "WeightsRule"]

_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
_BOUND = r" *(~=|[=!<>]=|[<>]) *v?[0-9][0-9A-Za-z.*+!_-]* *"
_RANGE = re.compile(rf"{_BOUND}(,{_BOUND})*")
_PATTERN = re.compile(rf"\*|{_NAME}(\.{_NAME})*(\.\*)?")


def _check_pattern(value: str) -> str:
    if len(value) > 128 or not _PATTERN.fullmatch(value):
        raise ValueError(
            "not a capability: write review.python, or review.* for all below it, or *"
        )
    return value


def _check_range(value: str) -> str:
    if not _RANGE.fullmatch(value):
        raise ValueError("not a range of versions: write it as in >=1.2,<2")
    return value


def _name_the_field(value: object, validate: ModelWrapValidatorHandler[Section]) -> Section:
    """An entry of a list has no key of its own, so its error must say what is wrong in it."""
    try:
        return validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {said}" if where else said) from error


Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Words = Annotated[tuple[Word, ...], Field(strict=False, max_length=32)]
Labels = Annotated[dict[Word, Word], Field(max_length=32)]
Weight = Annotated[float, Field(ge=0, le=1000)]
_LEFT_OUT = Field(default=None)
"""An entry of a list has no packaged default below it: what it leaves out, it does not say."""


class ScoreSettings(Section):
    """How much each part of a host's score counts where a task is not for every host; each part is
    between 0 and 1, and the score is their weighted mean."""

    fit: Weight
    """How many of the labels that a rule prefers the agent has."""

    specialization: Weight
    """How little the agent is specialized beyond what the task asks for: that leaves the
    specialists to those who need them."""

    load: Weight
    """How much of the host is free: its slots, and the CPU and memory that its beats measure."""

    latency: Weight
    """How fast it was lately, compared with the fastest candidate."""

    success: Weight
    """How often its attempts succeeded lately."""


class WeightsRule(Section):
    """Weights that differ from `score` for the tasks of a rule."""

    fit: Annotated[Weight | None, _LEFT_OUT]
    """As in `score`, and so the others."""

    specialization: Annotated[Weight | None, _LEFT_OUT]
    """As in `score`."""

    load: Annotated[Weight | None, _LEFT_OUT]
    """As in `score`."""

    latency: Annotated[Weight | None, _LEFT_OUT]
    """As in `score`."""

    success: Annotated[Weight | None, _LEFT_OUT]
    """As in `score`."""


class NeedsRule(Section):
    """Requirements of tasks that do not say otherwise themselves."""

    specialization: Annotated[Words | None, _LEFT_OUT]
    """What the agent must be specialized in; all of these."""

    version: Annotated[
        Annotated[Word, AfterValidator(_check_range)] | None,
        _LEFT_OUT,
    ]
    """Range of the agent's versions, as in `>=1.2,<2` (PEP 440)."""

    labels: Annotated[Labels | None, _LEFT_OUT]
    """Labels that the agent must have, with these values."""

    cpu: Annotated[Annotated[float, Field(gt=0, le=4096)] | None, _LEFT_OUT]
    """CPU cores that must be free on the host."""

    memory_mb: Annotated[Annotated[float, Field(gt=0, le=1e9)] | None, _LEFT_OUT]
    """Memory in MB that must be free on the host."""

    avoid: Annotated[Words | None, _LEFT_OUT]
    """Hosts or agents, by name, that do not get such a task."""


class RoutingRule(Section):
    """What is added for the tasks that match `capability` and `tenant`."""

    capability: Annotated[Annotated[str, AfterValidator(_check_pattern)] | None, _LEFT_OUT]
    """A capability, or `review.*` for all that is below `review`, or `*`."""

    tenant: Annotated[TenantName | None, _LEFT_OUT]
    """Only this tenant's tasks."""

    needs: Annotated[NeedsRule | None, _LEFT_OUT]
    """Requirements, as far as the task does not say otherwise."""

    prefer: Annotated[Labels | None, _LEFT_OUT]
    """Labels of agents that come first as long as one of them has room."""

    weights: Annotated[WeightsRule | None, _LEFT_OUT]
    """Other weights of the score."""

    @model_validator(mode="after")
    def _says_for_whom_and_what(self) -> Self:
        if self.capability is None and self.tenant is None:
            raise ValueError("say for which capability or tenant; capability: '*' is for all")
        if self.needs is None and self.prefer is None and self.weights is None:
            raise ValueError("it changes nothing; add needs, prefer or weights")
        return self


class AgentRouting(Section):
    """What agent_routing_rules.yaml holds."""

    pools: dict[Name, Annotated[tuple[TenantName, ...], Field(strict=False)]]
    """The tenants that each pool of hosts serves. A host sees only its pool's work. A tenant
    that stands in none is served by the pool `shared`."""

    score: ScoreSettings

    rules: Annotated[
        tuple[Annotated[RoutingRule, WrapValidator(_name_the_field)], ...],
        Field(strict=False, max_length=1000),
    ]
    """Requirements, preferences and weights by capability and tenant. All that match apply, in
    their order, the later over the earlier; what a task says itself comes before them."""

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
