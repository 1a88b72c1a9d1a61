"""The cgroups that hold this process: its own and those above it, in either version of cgroups.

In a container without a cgroup namespace the named folders do not exist and the mount itself is
the process's group; so a missing folder or file is no error, it limits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["CGROUP_ROOT", "MEMBERSHIP", "groups_of", "number_in", "numbers_in", "read_file"]

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def groups_of(controller: str, root: Path, membership: Path) -> Iterator[tuple[int, Path]]:
    """Yield (version of cgroups, folder) of every group that may limit this process, innermost
    first. membership: the file that names this process's groups."""
    for line in read_file(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            yield from ((2, folder) for folder in _upwards(root, group))
        elif controller in controllers.split(","):
            for mount in dict.fromkeys((root / controller, root / controllers)):
                yield from ((1, folder) for folder in _upwards(mount, group))


def number_in(path: Path) -> int | None:
    """Return the number that the file holds; None for `max`, for -1 (none), or for no such file."""
    text = read_file(path)
    return int(text) if text.isdigit() else None


def numbers_in(path: Path) -> dict[str, int]:
    """Return what a file of `name number` lines holds, such as memory.stat."""
    words = (line.split() for line in read_file(path).splitlines())
    return {each[0]: int(each[1]) for each in words if len(each) == 2 and each[1].isdigit()}


def read_file(path: Path) -> str:
    """Return the text of the file, or nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    parts = [part for part in group.strip().split("/") if part not in {"", "..", "."}]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])
