"""Which of several hosts is the best one for a task: a weighted mean of five parts from 0 to 1.

fit: how many of the preferred labels its agent has. specialization: how little the agent is
specialized beyond what is asked for. load: how much of the host is free. latency: how fast it was
lately, against the fastest candidate. success: how often its attempts succeeded lately. A host that
nobody knows yet is taken for a fast and faultless one, or it would never be tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import mul

import msgspec

from callboard_broker.wire import Needs, Offer
from callboard_router.hosts import Host, Queue
from callboard_router.performance import Performance
from callboard_router.routing import Weights

__all__ = ["Candidate", "score"]

_REASONS = 4
_CHARACTERS = 160
"""What is told of one candidate: a stranger's labels must not make an event large."""

_PARTS = ("fit", "specialization", "load", "latency", "success")


class Candidate(msgspec.Struct, kw_only=True, eq=False):
    """A live host of the queue. misfits: what stands against it for good; short: what it lacks now.

    failed_before: an attempt of the task failed there. matched: preferred labels that it has.
    on_the_way: attempts that are on their way to its mailbox. free: slots that are free beyond
    them. parts, score: set by `score`.
    """

    host: Host
    offer: Offer
    misfits: list[str]
    failed_before: bool = False
    matched: int = 0
    on_the_way: int = 0
    free: int = 0
    short: str | None = None
    parts: dict[str, float] = {}
    score: float = 0.0

    @property
    def name(self) -> str:
        return self.host.beat.host

    @property
    def queue(self) -> Queue:
        return self.host.beat.pool, self.offer.capability

    def told(self) -> dict[str, object]:
        """What a person is told of it."""
        found: dict[str, object] = {"host": self.name}
        if self.offer.agent:
            found["agent"] = self.offer.agent
        if self.misfits:
            found["misfits"] = [reason[:_CHARACTERS] for reason in self.misfits[:_REASONS]]
        elif self.short is not None:
            found["short"] = self.short
        elif self.parts:
            found["score"] = round(self.score, 4)
            found |= {name: round(value, 3) for name, value in self.parts.items()}
        if self.failed_before:
            found["failed_before"] = True
        return found


def score(
    candidates: Sequence[Candidate],
    needs: Needs,
    prefer: Mapping[str, str],
    weights: Weights,
    *,
    performance: Performance,
    at_ms: int,
) -> list[Candidate]:
    """Score each, and return them with the best first; among equals the name decides."""
    records = [performance.known(one.name, one.queue) for one in candidates]
    fastest = min((record.run_ms for record in records if record is not None), default=0.0)
    shares = [getattr(weights, part) for part in _PARTS]
    total = sum(shares)
    for one, record in zip(candidates, records, strict=True):
        beyond = len(set(one.offer.specialization).difference(needs.specialization))
        one.parts = {
            "fit": one.matched / len(prefer) if prefer else 1.0,
            "specialization": 1.0 / (1.0 + beyond),
            "load": _freedom(one, needs),
            "latency": 1.0 if record is None else (fastest + 1.0) / (record.run_ms + 1.0),
            "success": 1.0 if record is None else performance.success(record, at_ms),
        }
        gained = sum(map(mul, shares, one.parts.values()))
        one.score = gained / total if total else 0.0
    return sorted(candidates, key=lambda one: (-round(one.score, 6), one.name))


def _freedom(one: Candidate, needs: Needs) -> float:
    """How much of the host would be left free: the mean of what is known of slots, CPU, memory."""
    beat, offer = one.host.beat, one.offer
    parts = [max(0.0, min(1.0, one.free / offer.slots)) if offer.slots else 0.0]
    if beat.cpus > 0:
        parts.append(max(0.0, min(1.0, 1.0 - beat.cpu / beat.cpus)))
    if beat.free_mb > 0:
        asked = needs.memory_mb or offer.memory_mb or 256.0
        left = max(0.0, beat.free_mb - asked * one.on_the_way)
        parts.append(left / (left + asked))
    return sum(parts) / len(parts)
