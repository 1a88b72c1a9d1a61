"""What hosts are and what tasks ask of them: drawn here, and judged without the router's code.

A host is of one of two makes. Whatever a task asks for, one of the two has it, so nothing waits for
ever. Requirements of CPU and memory alone are no part of the judgement: the shared queue may take
them, where each host judges for itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MAKES", "Make", "asks_for_a_host", "draw_needs", "misfit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """What a host declares of itself. cpus: cores. memory_mb: what it has when nothing runs."""

    version: str
    specialization: str
    cpus: float
    memory_mb: float

    def declared(self, disk: str) -> dict[str, Any]:
        """The fields of its offers."""
        return {
            "agent": f"{disk}-agent",
            "version": self.version,
            "specialization": [self.specialization],
            "labels": {"disk": disk},
        }


MAKES = {
    "ssd": Make(version="1.4.0", specialization="deep", cpus=4.0, memory_mb=2000.0),
    "hdd": Make(version="2.1.0", specialization="wide", cpus=1.0, memory_mb=500.0),
}
"""By the label `disk`."""

_MAJOR = {">=1,<2": "1.", ">=2": "2."}


def draw_needs(rng: random.Random, steps: Sequence[str] = ()) -> dict[str, Any]:
    """One requirement. steps: those before, if the task is a step of a workflow."""
    what = rng.choice(
        ("labels", "version", "specialization", "avoid", "stay_with", "cpu", "memory_mb")
    )
    asked: dict[str, Any] = {
        "labels": {"disk": rng.choice(sorted(MAKES))},
        "version": rng.choice(sorted(_MAJOR)),
        "specialization": [rng.choice(("deep", "wide"))],
        "avoid": [rng.choice(("h0", "h1", "ssd-agent"))],
        "stay_with": rng.choice((*steps, "h0", "h1")),
        "cpu": rng.choice((0.5, 2.0)),
        "memory_mb": rng.choice((300.0, 1000.0)),
    }
    return {what: asked[what]}


def asks_for_a_host(needs: dict[str, Any]) -> bool:
    """Whether the task must never be in a queue, where any host could take it."""
    return bool(needs.keys() & {"labels", "version", "specialization", "avoid"})


def misfit(needs: dict[str, Any], host: str, disk: str) -> str | None:
    """What stands against this host for good; None: it fits."""
    make = MAKES[disk]
    if needs.get("labels", {}).get("disk", disk) != disk:
        return f"its disk is {disk}"
    if "version" in needs and not make.version.startswith(_MAJOR[needs["version"]]):
        return f"its version is {make.version}"
    if any(word != make.specialization for word in needs.get("specialization", ())):
        return f"its specialization is {make.specialization}"
    if {host, f"{disk}-agent"} & set(needs.get("avoid", ())):
        return "it is to be avoided"
    if needs.get("cpu", 0.0) > make.cpus:
        return f"it has {make.cpus} cores"
    return None
