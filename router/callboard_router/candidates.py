"""Where a task that nobody has posted yet could run: the very comparison that a dispatch makes.

It reads the desk and reserves nothing; a moment later the answer may be another one.
"""

from __future__ import annotations

import msgspec

from callboard_broker.rule import Life
from callboard_broker.wire import Needs, Terms
from callboard_router.accounts import need_of
from callboard_router.desk import Desk
from callboard_router.placement import rank
from callboard_router.scoring import Candidate
from callboard_router.state import Task

__all__ = ["HostView", "candidates"]

_MOST_TOLD = 200
_REASONS = 4
_CHARACTERS = 160


class HostView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host as a candidate. node: its machine. capability: of its agent, perhaps a more general
    one than was asked for.

    free: slots. cpus, cpu_used, cpu_promised: cores that it may use, that it uses with its child
    processes, and that its attempts were promised. memory_free_mb, memory_promised_mb: likewise,
    in MiB.
    score: 0 to 1, of `parts`. short: what it lacks now. misfits: why it never fits.
    """

    host: str
    node: str
    pool: str
    capability: str
    slots: int
    free: int
    cpus: float
    cpu_used: float
    cpu_promised: float
    memory_free_mb: float
    memory_promised_mb: float
    agent: str = ""
    version: str = ""
    specialization: list[str] = []
    labels: dict[str, str] = {}
    score: float = 0.0
    parts: dict[str, float] = {}
    short: str | None = None
    misfits: list[str] = []


def candidates(
    desk: Desk, tenant: str, capability: str, needs: Needs | None
) -> tuple[list[HostView], list[HostView]]:
    """Return the hosts that could run such a task, the best first, and those that never can.

    Raises `BadInput` for needs that nothing can fit.
    """
    terms = None if needs is None else Terms(needs=needs)
    task = Task(
        id="",
        tenant=tenant,
        capability=capability,
        shard=0,
        order=0,
        since=0,
        life=Life(),
        need=need_of(tenant, capability, terms),
        terms=terms,
    )
    ranked, misfits = rank(desk, task)
    return [_view(one) for one in ranked[:_MOST_TOLD]], [_view(one) for one in misfits[:_MOST_TOLD]]


def _view(one: Candidate) -> HostView:
    beat, offer = one.host.beat, one.offer
    return HostView(
        host=beat.host,
        node=beat.node,
        pool=beat.pool,
        capability=offer.capability,
        slots=offer.slots,
        free=max(0, one.free),
        cpus=beat.cpus,
        cpu_used=beat.cpu,
        cpu_promised=beat.allocated_cpu,
        memory_free_mb=beat.free_mb,
        memory_promised_mb=beat.allocated_mb,
        agent=offer.agent,
        version=offer.version,
        specialization=offer.specialization,
        labels=offer.labels,
        score=round(one.score, 4),
        parts={name: round(value, 3) for name, value in one.parts.items()},
        short=one.short,
        misfits=[reason[:_CHARACTERS] for reason in one.misfits[:_REASONS]],
    )
