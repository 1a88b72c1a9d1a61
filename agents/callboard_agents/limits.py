"""How much one attempt of an agent may take in a child process, as its declaration says.

What is left out is as the settings' section `agents:` has it. Memory and cores are not here: an
agent declares those as its needs, and they limit it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from callboard_broker.errors import BadInput

__all__ = ["Limits"]

_MAX_SECONDS = 30 * 86_400.0
_MAX_COUNT = 1_000_000
_LEAST_FILES = 16
_MAX_PATHS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`@agent(..., limits=Limits(cpu_seconds=10, processes=4))`; None: as the settings say.

    cpu_seconds: of each process of the attempt. disk_mb: MiB in files, in a folder of its own.
    output_mb: MiB of the result. files: open at once. processes: with itself; 1: it cannot start
    any. read: absolute paths that it may read and run, beside Python's own and those of the
    agents' modules (a command: beside the system's and its own). network: whether it may open
    connections. tasks_per_child: attempts of one tenant that a child process may run, one after the
    other; each finds in memory what those before have left there, and a child that has used a
    second of CPU runs no other. 1: each has a child of its own. Raises `BadInput` that names the
    field.
    """

    cpu_seconds: float | None = None
    disk_mb: float | None = None
    output_mb: float | None = None
    files: int | None = None
    processes: int | None = None
    read: Sequence[str] = ()
    network: bool | None = None
    tasks_per_child: int | None = None

    def __post_init__(self) -> None:
        _check_amount("cpu_seconds", self.cpu_seconds, _MAX_SECONDS)
        _check_amount("disk_mb", self.disk_mb, 1e9)
        _check_amount("output_mb", self.output_mb, 1e9)
        _check_count("files", self.files, _LEAST_FILES)
        _check_count("processes", self.processes, 1)
        _check_count("tasks_per_child", self.tasks_per_child, 1)
        if (self.tasks_per_child or 1) > 1 and (self.processes or 1) > 1:
            raise BadInput(
                "limits.tasks_per_child",
                "what may start processes runs one attempt only, for they are ended with it: "
                "leave one of processes and tasks_per_child at 1",
            )
        if self.network is not None and not isinstance(self.network, bool):
            raise BadInput("limits.network", f"{self.network!r} is not true or false")
        if isinstance(self.read, str) or not isinstance(self.read, Sequence):
            raise BadInput("limits.read", "a list of paths, such as ['/srv/models']")
        if len(self.read) > _MAX_PATHS:
            raise BadInput("limits.read", f"{len(self.read)} paths; at most {_MAX_PATHS}")
        for path in self.read:
            if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
                raise BadInput("limits.read", f"{path!r:.200} is not an absolute path")
        object.__setattr__(self, "read", tuple(self.read))


def _check_amount(field: str, value: object, most: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise BadInput(
            f"limits.{field}", f"{value!r:.80} is not a number above 0 and at most {most:g}"
        )


def _check_count(field: str, value: object, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_COUNT:
        raise BadInput(
            f"limits.{field}",
            f"{value!r:.80} is not a whole number from {least} to {_MAX_COUNT}",
        )
