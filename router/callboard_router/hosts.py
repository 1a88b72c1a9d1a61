"""The hosts as their beats show them: what they offer, and which of it is taken seriously.

A host is known by its pool and its name, so what one pool's hosts say never touches another's.
A beat is somebody else's word: offers of a capability that nobody can post for, doubled ones, and
more queues than the server should hold consumers for are passed over.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field

from callboard_broker.errors import BadInput
from callboard_broker.subjects import check_capability
from callboard_broker.wire import Beat, Offer

__all__ = [
    "MOST_CHARACTERS",
    "MOST_HOSTS",
    "MOST_QUEUES",
    "MOST_QUEUES_OF_A_POOL",
    "Boxes",
    "Host",
    "HostKey",
    "Queue",
    "offers_of",
]

Queue = tuple[str, str]
"""(pool, capability): one durable of the journal."""

HostKey = tuple[str, str]
"""(pool, name)."""

MOST_CHARACTERS = 63
"""Of a host's name; an outcome may claim to be of whatever it likes."""

MOST_HOSTS = 10_000
"""Hosts of one pool; each costs memory for three leases, and a stranger may invent names."""

MOST_QUEUES = 1000
MOST_QUEUES_OF_A_POOL = 500
"""Queues that are served, in all and for one pool: each is a consumer, and 600 idle ones cost a
cluster 11 % of a core per node."""


@dataclass(slots=True, kw_only=True)
class Host:
    """A host as its last beat showed it; `seen` on the router's monotonic clock.

    offers: by capability, and so: on_the_way: attempts dispatched to its mailbox that no beat has
    listed; freed: mailbox attempts that its last beat listed and that have ended since.
    """

    beat: Beat
    seen: float
    offers: dict[str, Offer] = field(default_factory=dict)
    on_the_way: Counter[str] = field(default_factory=Counter)
    freed: Counter[str] = field(default_factory=Counter)

    def free(self, capability: str) -> int:
        """Slots for this capability that are free by all that is known; may be below 0."""
        offer = self.offers.get(capability)
        if offer is None:
            return 0
        free = min(offer.free + self.freed[capability], offer.slots)
        return free - self.on_the_way[capability]


class Boxes:
    """What is on its way to mailboxes, by host and capability, also of hosts that are silent."""

    def __init__(self) -> None:
        self._boxes: dict[HostKey, Counter[str]] = {}

    def of(self, key: HostKey) -> Counter[str]:
        """By capability; the same object for as long as the host is known."""
        return self._boxes.setdefault(key, Counter())

    def arrived(self, key: HostKey, capability: str, *, is_known: bool) -> None:
        """An attempt is on its way no longer. is_known: so is the host."""
        box = self._boxes[key]
        box[capability] -= 1
        if not box[capability]:
            del box[capability]
        if not is_known:
            self.forget(key)

    def forget(self, key: HostKey) -> None:
        """The host is gone; its box stays for as long as something is on its way."""
        if not self._boxes.get(key):
            self._boxes.pop(key, None)


def offers_of(beat: Beat) -> dict[str, Offer]:
    """What the host offers, by capability; the first of two offers of one capability counts."""
    found: dict[str, Offer] = {}
    for offer in beat.offers:
        if offer.capability not in found and _can_be_posted(offer.capability):
            found[offer.capability] = offer
    return found


@functools.lru_cache(16_384)
def _can_be_posted(capability: str) -> bool:
    try:
        check_capability(capability)
    except BadInput:
        return False
    return True
