"""How far the work of a tenant is kept apart: the stricter of what its agents and the tenant say.

A tenant may demand that its tasks run in child processes, and that certain layers of isolation are
active around them. A host that cannot give that refuses the attempt, by an outcome that says why;
it never runs it with less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from callboard_broker.errors import BadInput, CallboardError
from callboard_config.isolation import IsolationSettings

__all__ = ["Demand", "IsolationMissing", "Policy"]

Least = Literal["inline", "process"]


class IsolationMissing(CallboardError, RuntimeError):
    """This host cannot keep the attempt apart as is required. layers: of each, why it is absent."""

    def __init__(self, layers: Mapping[str, str]) -> None:
        self.layers = dict(layers)
        said = "; ".join(f"{layer}: {why}" for layer, why in self.layers.items())
        super().__init__(
            f"this host lacks what is required to run the task ({said}): run a host that has it "
            "(`callboard doctor` shows what a host has), or require less of `isolation:`"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is demanded for the tasks of one tenant. require: layers that must be active."""

    process: bool = False
    require: frozenset[str] = frozenset()

    def missing(self, active: Collection[str], reasons: Mapping[str, str]) -> dict[str, str]:
        """Return the required layers that are not active, each with the reason."""
        return {
            layer: reasons.get(layer) or "not active"
            for layer in sorted(self.require)
            if layer not in active
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the settings' section `isolation:` says. Raises `BadInput` that names the field.

    every: for tenants without an entry of their own in `tenants`. read: paths that children may
    read, beside those of Python and of their agents' modules. network: whether they may open
    connections, if their agent does not say.
    """

    every: Demand = Demand()
    tenants: dict[str, Demand] = field(default_factory=dict)
    read: tuple[str, ...] = ()
    network: bool = False

    def __post_init__(self) -> None:
        for path in self.read:
            if not path.startswith("/"):
                raise BadInput("policy.read", f"{path!r} is not an absolute path")

    @classmethod
    def of(cls, settings: IsolationSettings) -> Self:
        """As the settings say: what a tenant requires comes on top, and implies `process`."""

        def demand(least: Least, *required: str) -> Demand:
            return Demand(process=least == "process" or bool(required), require=frozenset(required))

        return cls(
            every=demand(settings.least, *settings.require),
            tenants={
                tenant: demand(own.isolation or settings.least, *settings.require, *own.require)
                for tenant, own in settings.tenants.items()
            },
            read=settings.read,
            network=settings.network,
        )

    def demand(self, tenant: str) -> Demand:
        """What is demanded for this tenant's tasks."""
        return self.tenants.get(tenant, self.every)

    @property
    def demands_children(self) -> bool:
        """Whether some tenant's tasks must run in children, whatever their agents declare."""
        return self.every.process or any(demand.process for demand in self.tenants.values())

    @property
    def required(self) -> frozenset[str]:
        """The layers that some tenant requires."""
        return self.every.require.union(*(demand.require for demand in self.tenants.values()))
