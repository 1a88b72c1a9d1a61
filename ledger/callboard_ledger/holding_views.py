"""What the ledger answers of agents' hosts, allocations and budgets, in JSON.

A tenant is told of the hosts of its own pool, of its own attempts and of its own budgets; whoever
asks for all tenants, of everything.
"""

from __future__ import annotations

import msgspec
from msgspec import structs

from callboard_broker.beats import ROUTERS, Offer
from callboard_broker.limits import Limit
from callboard_broker.subjects import ALL_TENANTS
from callboard_ledger.allocations import Allocation
from callboard_ledger.hosts import HostRow, Hosts, HostState, owner_of
from callboard_ledger.questions import AgentsQuestion, AllocationsQuestion, BudgetsQuestion
from callboard_ledger.store import AllocationsQuery, Store

__all__ = [
    "AgentView",
    "AgentsView",
    "AllocationView",
    "AllocationsView",
    "BudgetView",
    "BudgetsView",
    "view_accounts",
    "view_allocations",
    "view_hosts",
]


class AgentView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A host of agents, as its last beat had it. Times are Unix milliseconds.

    state: `here`, `silent` for more than 20 s, or `gone`, as somebody said. since: when its
    incarnation was first heard. running: attempts. cpu (cores), memory_mb: measured, with its
    child processes; cpus, free_mb: what it may use and what is left; allocated_cpu, allocated_mb:
    promised to what runs.
    layers: of isolation. signs: it signs its outcomes. offers: its agents, with their versions and
    slots. at_once: by capability, so many attempts it has run at the same time, if asked for.
    """

    host: str
    pool: str
    state: HostState
    seen_at: int
    since: int
    silent_seconds: float
    node: str = ""
    pid: int = 0
    incarnation: str = ""
    running: int = 0
    cpu: float = 0.0
    cpus: float = 0.0
    memory_mb: float = 0.0
    free_mb: float = 0.0
    allocated_cpu: float = 0.0
    allocated_mb: float = 0.0
    blocked_seconds: float = 0.0
    layers: list[str] = []
    signs: bool = False
    offers: list[Offer] = []
    at_once: dict[str, int] | None = None


class AgentsView(msgspec.Struct):
    """Sorted by pool and host; ask again `after` the last one for more. at: the time of the
    answer, by the server's clock. position: of BEATS."""

    items: list[AgentView]
    at: int
    position: int


class AllocationView(Allocation, omit_defaults=True):
    """What an attempt holds or has held."""


class AllocationsView(msgspec.Struct):
    """The last dispatch first; ask again `before` the last one's `seq` for more."""

    items: list[AllocationView]
    position: int


class BudgetView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A budget; see `Account`. changed: what of its limit was set on the running board."""

    key: str
    limit: Limit | None = None
    changed: Limit | None = None
    in_use: int = 0
    most: int = 0
    exceeded: int = 0
    reserved: dict[str, float] = {}
    used: dict[str, float] = {}


class BudgetsView(msgspec.Struct):
    """Sorted by key; ask again `after` the last one for more. position: of the journal, up to
    which it is counted."""

    items: list[BudgetView]
    position: int


def view_hosts(
    hosts: Hosts, store: Store, question: AgentsQuestion, tenant: str, now_ms: int
) -> AgentsView:
    """The hosts that were asked for, as they are at `now_ms`."""
    at_once: dict[tuple[str, str], dict[str, int]] = {}
    if question.at_once:
        for found in store.overlaps():
            at_once.setdefault((found.pool, found.host), {})[found.capability] = found.most
    items = []
    for row in sorted(hosts.rows.values(), key=lambda row: (row.pool, row.host)):
        if row.pool == ROUTERS or tenant not in (ALL_TENANTS, owner_of(row.pool)):
            continue
        if question.pool not in (None, row.pool) or question.host not in (None, row.host):
            continue
        if question.state not in (None, row.state(now_ms)):
            continue
        if question.after is not None and f"{row.pool}/{row.host}" <= question.after:
            continue
        offered = {offer.capability for offer in row.beat.offers}
        if question.capability is not None and question.capability not in offered:
            continue
        item = _view_host(row, now_ms)
        if question.at_once:
            item.at_once = at_once.get((row.pool, row.host), {})
        items.append(item)
        if len(items) == question.limit:
            break
    return AgentsView(items, now_ms, hosts.position)


def _view_host(row: HostRow, now_ms: int) -> AgentView:
    beat = row.beat
    return AgentView(
        host=row.host,
        pool=row.pool,
        state=row.state(now_ms),
        seen_at=row.seen_at,
        since=row.since,
        silent_seconds=round(max(0, now_ms - row.seen_at) / 1000, 3),
        node=beat.node,
        pid=beat.pid,
        incarnation=beat.incarnation,
        running=0 if row.gone else len(beat.holds),
        cpu=beat.cpu,
        cpus=beat.cpus,
        memory_mb=beat.memory_mb,
        free_mb=beat.free_mb,
        allocated_cpu=beat.allocated_cpu,
        allocated_mb=beat.allocated_mb,
        blocked_seconds=beat.blocked,
        layers=sorted(beat.layers),
        signs=bool(beat.key),
        offers=beat.offers,
    )


def view_allocations(
    store: Store, question: AllocationsQuestion, tenant: str, position: int
) -> AllocationsView:
    """The allocations that were asked for."""
    query = AllocationsQuery(
        tenant=None if tenant == ALL_TENANTS else tenant,
        pool=question.pool,
        host=question.host,
        capability=question.capability,
        held=question.held,
        before=question.before,
        limit=question.limit,
    )
    rows = store.allocations(query)
    return AllocationsView([AllocationView(**structs.asdict(row)) for row in rows], position)


def view_accounts(
    store: Store, question: BudgetsQuestion, tenant: str, position: int
) -> BudgetsView:
    """The budgets that were asked for."""
    own = f"tenant/{tenant}"
    items = []
    for row in store.accounts():
        if tenant != ALL_TENANTS and row.key != own and not row.key.startswith(f"{own}/"):
            continue
        if question.key not in (None, row.key):
            continue
        if question.after is not None and row.key <= question.after:
            continue
        said = structs.asdict(row)
        del said["base"]
        items.append(BudgetView(**said))
        if len(items) == question.limit:
            break
    return BudgetsView(items, position)
