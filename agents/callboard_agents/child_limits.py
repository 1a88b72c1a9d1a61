"""How much a handler in a child process may take, where its agent does not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from callboard_broker.errors import BadInput
from callboard_config.resource_limits import AgentSettings

__all__ = ["ChildLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """What the settings' section `agents:` says of children, in its words and units.

    slots: children of one agent that run at once. spares: those that are made ready beforehand.
    tasks_per_child: see `Limits`; of agents that may start no process.
    Raises `BadInput` that names the field.
    """

    memory_mb: float = 1024.0
    cpu: float | None = None
    cpu_seconds: float | None = None
    disk_mb: float = 256.0
    output_mb: float = 64.0
    files: int = 256
    processes: int = 1
    command_processes: int = 32
    slots: int = 8
    spares: int = 4
    tasks_per_child: int = 1

    def __post_init__(self) -> None:
        for name in (
            "memory_mb",
            "disk_mb",
            "output_mb",
            "processes",
            "command_processes",
            "slots",
            "tasks_per_child",
        ):
            if not getattr(self, name) > 0:
                raise BadInput(f"limits.{name}", "must be above 0")
        for name in ("cpu", "cpu_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(f"limits.{name}", "must be above 0; leave it out for no limit")
        if self.files < 16:
            raise BadInput("limits.files", "must be at least 16")
        if self.spares < 0:
            raise BadInput("limits.spares", "must not be negative")

    @classmethod
    def of(cls, settings: AgentSettings) -> Self:
        """As the settings say."""
        return cls(
            memory_mb=settings.memory_mb,
            cpu=settings.cpu,
            cpu_seconds=settings.cpu_seconds,
            disk_mb=settings.disk_mb,
            output_mb=settings.output_mb,
            files=settings.files,
            processes=settings.processes,
            command_processes=settings.command_processes,
            slots=settings.slots_process,
            spares=settings.spares,
            tasks_per_child=settings.tasks_per_child,
        )
