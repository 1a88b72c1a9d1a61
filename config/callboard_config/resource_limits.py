"""resource_limits.yaml: how much may run at once, how fast, and for how long."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from callboard_config.cpus import auto_concurrency
from callboard_config.isolation import IsolationSettings
from callboard_config.section import Name, Section, StorePath, TenantName, disagreement

__all__ = [
    "AgentSettings",
    "BudgetLimit",
    "BudgetSettings",
    "ResourceLimits",
    "TenantBudget",
    "UnitQuota",
]

Attempts = Annotated[int, Field(ge=1, le=1_000_000)]
Guaranteed = Annotated[int, Field(ge=0, le=1_000_000)]
Waiting = Annotated[int, Field(ge=0, le=100_000_000)]
Weight = Annotated[float, Field(gt=0, le=1000)]
Rate = Annotated[float, Field(gt=0, le=1e9)]
Burst = Annotated[float, Field(ge=1, le=1e9)]
Seconds = Annotated[float, Field(gt=0, le=2_592_000)]
Megabytes = Annotated[float, Field(gt=0, le=1e9)]
Cores = Annotated[float, Field(gt=0, le=10_000)]


def _check_capability(value: str) -> str:
    if len(value) > 128 or not re.fullmatch(
        r"[a-z0-9][a-z0-9_-]{0,62}(\.[a-z0-9][a-z0-9_-]{0,62})*", value
    ):
        raise ValueError("not a capability: use names joined by dots, as in review.python")
    return value


def _check_budget(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.:-]{0,62}", value):
        raise ValueError("not a budget's name: use 1-63 of a-z 0-9 _ - . : as in provider:openai")
    return value


CapabilityName = Annotated[str, AfterValidator(_check_capability)]
BudgetName = Annotated[str, AfterValidator(_check_budget)]
Omitted = Field(default=None)
"""Entries of a map have no packaged default: what is left out is not limited by that entry."""


class UnitQuota(Section):
    """How much of a unit, such as LLM tokens or cost, may be used."""

    limit: Annotated[float, Field(ge=0, le=1e15)]
    """As much may be reserved or used within `per`, or in all."""

    per: Annotated[Seconds | None, Omitted]
    """Seconds in which `limit` refills, steadily; null: it never does."""


Units = dict[Name, UnitQuota]


class BudgetLimit(Section):
    """What one budget allows; whatever is left out is not limited."""

    concurrency: Annotated[Attempts | None, Omitted]
    """Attempts that may run at once."""

    rate: Annotated[Rate | None, Omitted]
    """Attempts a second that may be dispatched, on the average."""

    burst: Annotated[Burst | None, Omitted]
    """Attempts that may be dispatched at once after a rest; null: what a second brings, and at
    least one."""

    units: Annotated[Units, Field(default_factory=dict)]
    """LLM tokens, cost and the like: what the tasks reserve of them and then use."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.model_fields_set:
            raise disagreement("it limits nothing; give it a limit or leave it out", "concurrency")
        if self.burst is not None and self.rate is None:
            raise disagreement("a burst is what may exceed a rate: give a rate as well", "burst")
        return self

    @model_serializer(mode="wrap")
    def _what_was_said(
        self, write: SerializerFunctionWrapHandler, _info: SerializationInfo
    ) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name in self.model_fields_set}


class TenantBudget(BudgetLimit):
    """The budget of one tenant; what is left out is as for every tenant."""

    weight: Annotated[Weight | None, Omitted]
    """Its share of the capacity where several tenants compete, in proportion to theirs."""

    guaranteed: Annotated[Guaranteed | None, Omitted]
    """Attempts at once that it gets before anybody gets a share; what it does not use, others
    borrow."""

    waiting: Annotated[Waiting | None, Omitted]
    """Tasks that may wait; further posts are refused until some have run."""

    capabilities: Annotated[dict[CapabilityName, BudgetLimit], Field(default_factory=dict)]
    """What this tenant may run of single capabilities."""


class BudgetSettings(Section):
    """The budgets that hold until the router records others (`callboard budget set`). A task needs
    room in all of its own: the global one, its tenant's, its capability's, that of both, and those
    that it names."""

    global_concurrency: Literal["auto"] | Attempts
    """Attempts that may run at once on this board. `auto`: from the CPUs that this process may
    use, see `auto_concurrency`."""

    global_rate: Rate | None
    """Attempts a second that may be dispatched on this board; null: no limit."""

    global_burst: Burst | None
    """How many at once after a rest; null: what a second brings."""

    global_units: Units
    """LLM tokens, cost and the like, for the whole board."""

    tenant_concurrency: Literal["auto"] | Attempts
    """The same for each tenant without an entry of its own. `auto`: as many as globally, since
    the fair queue already shares the capacity between tenants that compete."""

    tenant_rate: Rate | None
    """Attempts a second for each tenant; null: no limit."""

    tenant_burst: Burst | None
    """How many at once after a rest; null: what a second brings."""

    tenant_units: Units
    """LLM tokens, cost and the like, for each tenant."""

    tenant_weight: Weight
    """A tenant's share of the capacity where several compete, in proportion to the others'."""

    tenant_guaranteed: Guaranteed
    """Attempts at once that a tenant gets before anybody gets a share."""

    tenant_waiting: Waiting | None
    """Tasks of a tenant that may wait; further posts are refused, with a hint when to try again.
    Each waiting task costs the router one or two KB of memory."""

    tenants: dict[TenantName, TenantBudget]
    """Tenants whose budget differs."""

    capabilities: dict[CapabilityName, BudgetLimit]
    """What all tenants together may run of a capability; only of that very one, not of those
    below it."""

    keys: dict[BudgetName, BudgetLimit]
    """Budgets that tasks name themselves, such as `provider:openai`."""

    @model_validator(mode="after")
    def _a_burst_has_a_rate(self) -> Self:
        if self.global_burst is not None and self.global_rate is None:
            raise disagreement("a burst is what may exceed a rate: give one", "global_burst")
        if self.tenant_burst is not None and self.tenant_rate is None:
            raise disagreement("a burst is what may exceed a rate: give one", "tenant_burst")
        return self

    def global_limit(self) -> int:
        """Return the attempts that may run at once, with `auto` worked out on this machine."""
        if self.global_concurrency == "auto":
            return auto_concurrency()
        return self.global_concurrency

    def tenant_limit(self, tenant: str) -> int:
        """Return the attempts of `tenant` that may run at once."""
        own = self.tenants.get(tenant)
        if own is not None and own.concurrency is not None:
            return own.concurrency
        if self.tenant_concurrency == "auto":
            return self.global_limit()
        return self.tenant_concurrency


class AgentSettings(Section):
    """What holds for an agent that does not say otherwise in `@agent(...)`."""

    slots_inline: Annotated[int, Field(ge=1, le=100_000)]
    """Attempts that one host runs at once on its event loop. They only wait, so many fit."""

    slots_thread: Annotated[int, Field(ge=1, le=10_000)]
    """Attempts that one host runs at once in threads; each costs a stack and shares the GIL."""

    slots_process: Annotated[int, Field(ge=1, le=10_000)]
    """Attempts that one host runs at once in child processes."""

    spares: Annotated[int, Field(ge=0, le=1000)]
    """Child processes of an agent that are made ready before anybody asks for them; one costs a
    few MB until it is used, and a start without one a few milliseconds."""

    tasks_per_child: Annotated[int, Field(ge=1, le=1_000_000)]
    """Attempts of one tenant that a child process may run, one after the other; each finds in
    memory what those before have left there, and a child that has used a second of CPU runs no
    other. 1: each has a child of its own. Agents that may start processes, and commands, have 1."""

    memory_mb: Megabytes
    """MiB that a child process may take beyond what it was started with. A limit only: what is
    promised to an attempt is what its agent declares."""

    cpu: Cores | None
    """Cores that a child process may use at a time; null: no limit. Needs cgroups."""

    cpu_seconds: Seconds | None
    """Seconds of CPU that an attempt in a child process may use; null: no limit but its timeout."""

    disk_mb: Megabytes
    """MiB that a child process may have in files, all of them in a folder of its own."""

    output_mb: Megabytes
    """MiB that the result of a child process may take, and what a command writes."""

    files: Annotated[int, Field(ge=16, le=1_000_000)]
    """Files that a child process may have open at once."""

    processes: Annotated[int, Field(ge=1, le=100_000)]
    """Processes that an attempt in a child process may be, with itself; 1: it cannot start any."""

    command_processes: Annotated[int, Field(ge=1, le=100_000)]
    """The same for an agent that is a command."""

    timeout_seconds: Seconds
    """Seconds that one attempt may run. Long enough for a slow LLM call with tools."""

    drain_seconds: Seconds
    """Seconds that a host waits on SIGTERM for running attempts before it hands them back.
    Equals Kubernetes' own grace period, after which it kills."""

    sign_outcomes: bool
    """Whether a host signs what it says of its attempts, so that nobody else can say it in its
    name unnoticed. About 50 microseconds of its CPU for each."""

    signing_key: StorePath
    """File of the private key it signs with; null: one of its own, made at each start."""


class ResourceLimits(Section):
    """What resource_limits.yaml holds."""

    budgets: BudgetSettings
    agents: AgentSettings
    isolation: IsolationSettings
