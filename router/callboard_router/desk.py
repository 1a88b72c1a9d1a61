"""All that a decision is made from, and how one is written down.

The state is what the fold built; observations are what beats and the clock say; proposals are what
is written and not yet read back. A decision changes none of them but the proposals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from callboard_broker.subjects import Subjects
from callboard_broker.wire import Event, Limit, Retry
from callboard_router.agenda import Agenda
from callboard_router.liveness import Liveness, Queue, Timing
from callboard_router.performance import Performance
from callboard_router.proposals import Proposal, Proposals
from callboard_router.routing import Routing
from callboard_router.state import State

__all__ = ["Desk", "Policy", "Wish", "propose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the settings say.

    limits: the budgets by key, see `wire.Budget`. pools: tenant -> pool. lost_limit: attempts lost
    with their hosts that end a task; unstarted_limit: attempts that nobody began. retry: of tasks
    that say nothing of it. ageing: seconds of waiting that are worth one level of priority.
    standby, unresolved: seconds (`tenure`). max_items: elements of a fan-out.
    """

    limits: dict[str, Limit]
    timing: Timing = field(default_factory=Timing)
    routing: Routing = field(default_factory=Routing)
    pools: dict[str, str] = field(default_factory=dict)
    lost_limit: int = 3
    unstarted_limit: int = 20
    retry: Retry = field(default_factory=Retry)
    ageing: float = 10.0
    max_items: int = 10_000
    standby: float = 2.0
    unresolved: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Someone wants other budgets. done: told whether they are in force."""

    changed: dict[str, Limit | None]
    by: str
    done: Callable[[bool], None]


@dataclass(slots=True, kw_only=True)
class Desk:
    """What lies on the desk of a router.

    capacity: (slots, hosts) of each queue that live hosts serve. allowance: what a queue may hold
    beyond its slots, because it completes that much while a dispatch is on its way.
    ready: queues whose durable exists. wishes: budgets to be changed, one after the other.
    """

    state: State
    subjects: Subjects
    policy: Policy
    liveness: Liveness
    agenda: Agenda
    proposals: Proposals
    secret: Callable[[], str]
    performance: Performance = field(default_factory=Performance)
    capacity: dict[Queue, tuple[int, int]] = field(default_factory=dict)
    allowance: dict[Queue, int] = field(default_factory=dict)
    ready: set[Queue] = field(default_factory=set)
    wishes: list[Wish] = field(default_factory=list)


def propose(
    desk: Desk,
    out: list[Proposal],
    key: str,
    place: tuple[str, str, int],
    event: Event,
    attach: bytes | None = None,
) -> None:
    """Write `event` down; of one key, one proposal is under way at a time.

    place: (tenant, kind, shard) of its subject. attach: see `Proposal`.
    """
    desk.proposals.open(key)
    subject = desk.subjects.run(*place)
    proposal = Proposal(subject=subject, event=event, guard=desk.state.epoch, attach=attach)
    out.append(proposal)
