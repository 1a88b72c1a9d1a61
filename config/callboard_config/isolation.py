"""The `isolation:` section: how far the work of a tenant is kept apart from everything else.

Nothing here loosens what an agent declares of itself: of the two, the stricter holds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from callboard_config.section import Section, TenantName

__all__ = ["IsolationSettings", "Layer", "TenantIsolation"]

Layer = Literal[
    "rlimits", "no_new_privs", "landlock", "seccomp", "cgroup", "uid", "namespaces", "disk", "fresh"
]
"""What stands between a child process and its host; `callboard doctor` says which this one has.
`fresh`: between a task and those before it, a process of its own."""

Layers = Annotated[tuple[Layer, ...], Field(strict=False)]
Least = Literal["inline", "process"]


def _check_path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("not an absolute path")
    return value


Path = Annotated[str, AfterValidator(_check_path)]


class TenantIsolation(Section):
    """What one tenant demands; what is left out is as for every tenant."""

    isolation: Annotated[Least | None, Field(default=None)]
    """`process`: its tasks run in child processes, whatever their agents declare. `inline`: as the
    agents declare."""

    require: Annotated[Layers, Field(default=())]
    """Layers that must be active, beside those that every tenant requires. Requiring one means
    `process`."""


class IsolationSettings(Section):
    """What is demanded beyond what agents declare."""

    least: Least
    """For tenants without an entry of their own. `process`: no task runs in the host's own
    process. A thread isolates from nothing, so it is not offered here."""

    require: Layers
    """Layers that must be active for every tenant's tasks; a host that lacks one refuses them, and
    another may take them. Requiring one means `process`."""

    read: Annotated[tuple[Path, ...], Field(strict=False)]
    """Files and folders that a child process may read, beside those of Python, of its agents'
    modules, and what an agent declares; where Landlock is active."""

    network: bool
    """Whether a child process may open connections, if its agent does not say; where seccomp is
    active."""

    tenants: dict[TenantName, TenantIsolation]
    """Tenants that demand something else."""
