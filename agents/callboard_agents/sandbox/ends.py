"""What the end of a child means that has said no last word, or a command that knows only its own.

The kernel's report is what counts: how the process ended, and what its group has refused it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from callboard_agents.sandbox.grant import Grant
from callboard_broker.wire import Failure, Usage

__all__ = ["Report", "limit_met", "why_ended"]

_STAGE = 1  # process of a command that is not its own


@dataclass(frozen=True, slots=True)
class Report:
    """What the kernel says of a child that is gone. status: as of wait. starved: it ended for want
    of memory. tasks: the processes and threads that it had when another was refused; 0: none
    was."""

    status: int
    cpu_s: float
    peak_mb: float
    starved: bool
    tasks: int


def why_ended(report: Report, usage: Usage, grant: Grant, *, killed: bool) -> Failure:
    """What the kernel's report of a child without a last word means."""
    status = report.status
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if report.starved:
        why = f"the kernel ended it at {usage.memory_mb:.0f} MiB, of {grant.memory_mb:g} granted"
        return Failure("MemoryExceeded", why)
    limit = grant.cpu_seconds
    if limit is not None and (number == signal.SIGXCPU or (number and usage.cpu_s >= limit)):
        return Failure("CpuExceeded", f"{usage.cpu_s:.2f} s of CPU, of {limit:g} that are granted")
    if killed:
        return Failure("Crashed", "it was killed by its host")
    if number:
        return Failure("Crashed", f"it died of {signal.Signals(number).name}")
    return Failure("Crashed", f"it exited with {os.WEXITSTATUS(status)} and without a result")


def limit_met(failure: Failure, report: Report, usage: Usage, grant: Grant) -> Failure:
    """The limit of its group that a command has met, before what its end says: of a process that
    was killed, or not made, the command itself knows only that."""
    if report.starved:
        kind = "MemoryExceeded"
        why = f"the kernel ended a process of it for want of memory, at {usage.memory_mb:.0f} MiB, "
        why += f"of {grant.memory_mb:g} granted to all"
    elif report.tasks and failure.type == "CommandFailed":
        kind, tasks = "ProcessesExceeded", report.tasks - _STAGE
        why = f"it had {tasks}, of the {tasks} processes and threads that are granted"
    else:
        return failure
    return Failure(kind, f"{why}; {failure.message}", trace=failure.trace)
