"""What a host says of itself every few seconds: that it lives, what it offers, what it holds.

Beats are no events: they stand in a stream of their own, and only the last one of a host counts.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from callboard_broker.decoding import decode_foreign
from callboard_broker.posts import SCHEMA, Version, Word

__all__ = ["ROUTERS", "Beat", "Offer", "decode_beat"]

ROUTERS = "router"
"""The pool in whose name routers beat."""

_DEPTH = 8


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue that a host serves. slots: attempts it can hold at once; free: of them, now.

    agent, version, specialization, labels: what the agent declares of itself. cpu (cores),
    memory_mb: what one attempt of it needs.
    """

    capability: str
    slots: Annotated[int, Meta(ge=0, le=1_000_000)]
    free: Annotated[int, Meta(ge=0, le=1_000_000)]
    agent: Annotated[str, Meta(max_length=128)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""
    specialization: Annotated[list[Word], Meta(max_length=32)] = []
    labels: Annotated[dict[Word, Word], Meta(max_length=32)] = {}
    cpu: float | None = None
    memory_mb: float | None = None


class Beat(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host says, from outside its handlers' loop, that it lives and what it holds.

    incarnation: new at every start, and after every lease that the host let end.
    cpu: cores in use by the host, its child processes among it. memory_mb: what they have. cpus:
    cores that it may use. free_mb: memory that its machine or cgroup has left; 0: not known.
    blocked: seconds for which the loop of its handlers has not answered.
    allocated_cpu (cores), allocated_mb: what its running attempts were promised.
    layers: what it can keep between itself and a handler in a child process.
    key: what its signatures of outcomes are checked with, base64 of 32 bytes; empty: it signs none.
    gone: the incarnation has ended, on the word of the host itself or of its supervisor.
    fresh_from: the journal's last sequence when the connection that pulls work was made; what was
    stored before it, this host starts only on the router's word.
    """

    host: str
    incarnation: str
    pool: str
    offers: Annotated[list[Offer], Meta(max_length=1000)] = []
    holds: list[tuple[str, int]] = []
    cpu: float = 0.0
    memory_mb: float = 0.0
    cpus: float = 0.0
    free_mb: float = 0.0
    pid: int = 0
    node: str = ""
    gone: bool = False
    fresh_from: int = 0
    blocked: float = 0.0
    allocated_cpu: float = 0.0
    allocated_mb: float = 0.0
    layers: Annotated[list[Word], Meta(max_length=16)] = []
    key: Annotated[str, Meta(max_length=64)] = ""
    v: Version = SCHEMA

    def ends(self, incarnation: str) -> bool:
        """Whether this beat says that `incarnation` is over.

        A supervisor knows only the name that it gave its child; a child whose lease ended in
        between goes by that name with `.1`, `.2`, ... appended.
        """
        named = self.incarnation
        return self.gone and (incarnation == named or incarnation.startswith(named + "."))


_beat = msgspec.json.Decoder(Beat)


def decode_beat(data: bytes) -> Beat:
    """Read a host's beat. Raises `BadInput` that names the field."""
    beat: Beat = decode_foreign(_beat, data, _DEPTH)
    return beat
