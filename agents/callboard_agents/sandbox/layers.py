"""The layers between a child process and its host: their names, and which this host offers."""

from __future__ import annotations

__all__ = ["LAYERS", "available"]

LAYERS = ("rlimits", "no_new_privs", "landlock", "seccomp", "cgroup", "uid", "namespaces")


def available() -> dict[str, str]:
    """Return for each layer "" if this process can have it for its children, else the reason."""
    return dict.fromkeys(LAYERS, "not built yet")
