"""The UUIDs by which the tracker knows tenants, projects, rows, activities and actors.

Each is derived (UUIDv5, RFC 9562) from what the board calls it, or stands in the settings. So the
same event always makes the same row, whoever writes it and however often.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PULLED", "Names", "source_of", "step_of"]

_SPACE = uuid.UUID("7d5a1c5e-4f0b-5a53-9a55-3c1d1b6e9f20")

PULLED = "cerebral-row-"
"""How the step is called that works on a row of the tracker; the row's id follows."""

_SOURCE = re.compile(rf"{PULLED}([a-z0-9][a-z0-9_-]{{0,48}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """tenants, projects: UUIDs by the tenant's name; others are derived from the name."""

    tenants: Mapping[str, str] = field(default_factory=dict)
    projects: Mapping[str, str] = field(default_factory=dict)

    def tenant(self, name: str) -> str:
        """A name that is a UUID stands for itself, unless that one is given to another tenant."""
        given = self.tenants.get(name)
        if given is not None:
            return given
        own = _own(name)
        if own is None or own in self.tenants.values():
            return _derived("tenant", name)
        return own

    def project(self, tenant: str) -> str:
        """The project of all that the tenant does."""
        return self.projects.get(tenant) or _derived("project", tenant)

    @staticmethod
    def row(stream: str, resource: str) -> str:
        """Of a task, a step (`4711.build`) or a workflow of this journal."""
        return _derived("row", f"{stream}/{resource}")

    @staticmethod
    def activity(stream: str, seq: int) -> str:
        """Of what the event at `seq` of this journal did."""
        return _derived("activity", f"{stream}/{seq}")

    @staticmethod
    def actor(name: str) -> str:
        """Of a client, a host, or the router."""
        return _derived("actor", name)


def step_of(row: str) -> str:
    """The step that works on this row of the tracker."""
    return f"{PULLED}{row}"


def source_of(step: str) -> str | None:
    """The row of the tracker on which a step works; None if it came from elsewhere."""
    found = _SOURCE.fullmatch(step)
    return None if found is None else found[1]


def _derived(kind: str, name: str) -> str:
    return str(uuid.uuid5(_SPACE, f"{kind}/{name}"))


def _own(name: str) -> str | None:
    try:
        return str(uuid.UUID(name)) if len(name) == 36 else None
    except ValueError:
        return None
