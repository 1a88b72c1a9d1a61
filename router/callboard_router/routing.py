"""What the settings say of routing: rules that add requirements, preferences and weights.

All rules that match a task apply, in their order, the later over the earlier; what the task itself
requires comes before both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from msgspec import structs

from callboard_broker.wire import Needs
from callboard_config.agent_routing import AgentRouting, RoutingRule

__all__ = ["Blocked", "Placement", "Routing", "Rule", "Weights", "merged", "routing_from"]

_CACHED = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each part of a candidate's score counts, relative to the others."""

    fit: float = 1.0
    specialization: float = 1.0
    load: float = 2.0
    latency: float = 1.0
    success: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is added for tasks that match. capability: a pattern, see `Routing.rule`; tenant: its
    name; None matches all. prefer: labels, that a host is chosen for if one has them and room.
    """

    capability: str | None = None
    tenant: str | None = None
    needs: Needs | None = None
    prefer: dict[str, str] = field(default_factory=dict)
    weights: Weights | None = None

    def matches(self, tenant: str, capability: str) -> bool:
        """Whether it holds for this tenant's tasks for this capability."""
        if self.tenant not in (None, tenant):
            return False
        pattern = self.capability
        if pattern is None or pattern in ("*", capability):
            return True
        return pattern.endswith(".*") and capability.startswith(pattern[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The rules, and the weights where no rule gives others."""

    rules: tuple[Rule, ...] = ()
    weights: Weights = field(default_factory=Weights)
    _found: dict[tuple[str, str], Rule | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    def rule(self, tenant: str, capability: str) -> Rule | None:
        """All that the rules say for such a task, in one; None if none of them matches.

        A pattern is `*`, or a capability, or `review.*`: everything below `review`, not itself.
        """
        if not self.rules:
            return None
        key = (tenant, capability)
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= _CACHED:
                self._found.clear()
            found = self._found[key] = _sum(
                rule for rule in self.rules if rule.matches(tenant, capability)
            )
            return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a task goes: to the queue (pool, capability), or past it to the mailbox of `host`.

    why: part of `Dispatch.why`: `reason`, and with a host the `candidates` with their scores.
    """

    queue: tuple[str, str]
    host: str | None = None
    why: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Why a task goes nowhere now.

    on: `agents/<pool>/<capability>` (no host serves it), `slots/...` (those that fit are full) or
    `fit/...` (hosts serve it, none fits), of the queue meant. why: `reason`, `candidates`.
    wrong: (field, reason) of a requirement that cannot be read, which no waiting cures.
    """

    on: str
    why: dict[str, object] = field(default_factory=dict)
    wrong: tuple[str, str] | None = None


def _sum(rules: Iterable[Rule]) -> Rule | None:
    found: Rule | None = None
    for rule in rules:
        if found is None:
            found = rule
            continue
        found = replace(
            found,
            needs=merged(rule.needs, found.needs),
            prefer=found.prefer | rule.prefer,
            weights=rule.weights or found.weights,
        )
    return found


def merged(needs: Needs | None, defaults: Needs | None) -> Needs | None:
    """The requirements of `needs`; where it says nothing, those of `defaults`; labels by name."""
    if needs is None or defaults is None:
        return needs if defaults is None else defaults
    return structs.replace(
        needs,
        specialization=needs.specialization or defaults.specialization,
        version=needs.version or defaults.version,
        labels=defaults.labels | needs.labels,
        cpu=defaults.cpu if needs.cpu is None else needs.cpu,
        memory_mb=defaults.memory_mb if needs.memory_mb is None else needs.memory_mb,
        stay_with=needs.stay_with or defaults.stay_with,
        avoid=needs.avoid or defaults.avoid,
    )


def routing_from(settings: AgentRouting) -> Routing:
    """The routing that agent_routing_rules.yaml asks for."""
    weights = Weights(**settings.score.model_dump())
    return Routing(
        rules=tuple(_rule(rule, weights) for rule in settings.rules),
        weights=weights,
    )


def _rule(rule: RoutingRule, weights: Weights) -> Rule:
    given = None if rule.weights is None else rule.weights.model_dump(exclude_none=True)
    return Rule(
        capability=rule.capability,
        tenant=rule.tenant,
        needs=None if rule.needs is None else _needs(rule),
        prefer=dict(rule.prefer or {}),
        weights=None if given is None else replace(weights, **given),
    )


def _needs(rule: RoutingRule) -> Needs:
    given = {} if rule.needs is None else rule.needs.model_dump(mode="json", exclude_none=True)
    return Needs(**given)
