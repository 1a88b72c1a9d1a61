"""A child's whole life: it enters its layers, waits for its task, runs it, and exits; where its
agent allows that, it runs further tasks of the same tenant before.

What it inherits is closed but for the socket to its host. A layer that the host promised and that
cannot be entered ends it before its task: it says so and never runs the handler.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from callboard_agents.context import Context
from callboard_agents.failures import failure_of
from callboard_agents.results import encode_result
from callboard_agents.sandbox.breaches import breach_of
from callboard_agents.sandbox.cells import Cell
from callboard_agents.sandbox.channel import FAILED, RESULT, START, frame, join
from callboard_agents.sandbox.grant import TIRED_CPU_S, CellPlan, TaskHeader
from callboard_agents.sandbox.landlock import restrict_to
from callboard_agents.sandbox.remote import LOGGED, ChildContext, Remote, capture
from callboard_agents.sandbox.rlimits import MIB, limit_cpu
from callboard_agents.sandbox.seccomp import Filter
from callboard_agents.sandbox.stage import run_command
from callboard_agents.sandbox.syscalls import Turns, die_with_parent
from callboard_broker.wire import Failure, encode

__all__ = ["CHANNEL", "MOST_FILES", "NICER", "REHEARSED", "Birth", "live", "warm_up"]

_SAMPLE = b'{"task":"1","attempt":1,"tenant":"a","capability":"a","seconds":1.0}'
REHEARSED = frame(START, 0, join(_SAMPLE, b'{"warm":[1,2.5,null]}'))
"""What a child is sent before its task: it does with it what every task needs, see `warm_up`."""

CHANNEL = 3
NICER = 5
MOST_FILES = 1 << 16
_FEW_FILES = 32  # are removed while an outcome waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What a keeper gives its child. start: calls the agent's handler, through its middleware;
    None: it is a command. is_async: that returns a coroutine. calls: the filter of system calls.
    remote: the host at the other end of descriptor 3, with a loop if it needs one. turns: of the
    CPU, once it is ready. environment: of each task. keeper: the parent's pid."""

    start: Callable[[msgspec.Raw, Context], Any] | None
    is_async: bool
    plan: CellPlan
    cell: Cell
    calls: Filter | None
    remote: Remote
    turns: Turns
    environment: dict[str, str]
    keeper: int


def live(birth: Birth, channel: int) -> NoReturn:
    """In the child: never returns. channel: the descriptor of the socket to the host."""
    code = 1
    try:
        os.dup2(channel, CHANNEL)
        code = _live(birth)
    except SystemExit:
        code = 0  # the host is gone, or has no task for it any more
    except BaseException as error:  # noqa: BLE001  the last word of a child that is itself broken
        failure = failure_of(error)
        os.write(
            CHANNEL,
            frame(FAILED, 0, encode(Failure("Crashed", failure.message, trace=failure.trace))),
        )
    finally:
        os._exit(code)


def _live(birth: Birth) -> int:
    try:
        _enter(birth)
        if birth.remote.loop is not None:
            birth.remote.loop.begin()
        if birth.calls is not None:
            birth.calls.enter(os.getpid())
    except OSError as error:
        missing = Failure("IsolationMissing", f"a layer of isolation failed: {error}")
        os.write(CHANNEL, frame(FAILED, 0, encode(missing)))
        return 1
    remote = birth.remote
    warm_up(remote)
    birth.turns.ask()
    level = LOGGED
    left = birth.plan.tasks_per_child
    while left:
        header, payload = remote.await_task()
        if header.level != level:
            level = header.level
            logging.getLogger().setLevel(level)
        gc.enable()
        data, failure = _run(birth, header, payload)
        goes_on = left > 1 and failure is None and remote.is_idle() and _tidied(birth)
        left = left - 1 if goes_on else 0
        if failure is not None:
            remote.say(FAILED, encode(failure))
        else:
            remote.say(RESULT, data or b"null", goes_on=goes_on)
        del data, payload  # while it waits, and from the memory of the next task
        if goes_on:
            capture(remote)
    remote.await_end()
    return 0


def _tidied(birth: Birth) -> bool:
    """Make ready for another task of the same tenant, but for what handlers keep in memory; whether
    that was possible, and soon. It comes before the last word, which says so: a task that is given
    to this process shall neither wait for it nor fail by it."""
    try:
        birth.cell.empty(_FEW_FILES)
        limit_cpu(birth.plan.grant, used=time.process_time(), most_used=_most_used(birth.plan))
    except (OSError, ValueError, MemoryError):  # it has left too much, or no descriptor or limit
        return False
    os.umask(0o077)
    if os.environ != birth.environment:
        os.environ.clear()
        os.environ.update(birth.environment)
    return True


def _most_used(plan: CellPlan) -> int:
    return TIRED_CPU_S if plan.tasks_per_child > 1 else 0


def _enter(birth: Birth) -> None:
    """Enter what the keeper has not, in an order in which nothing denies the next its calls."""
    cell = birth.cell
    os.setpgid(0, 0)
    if cell.group is None:
        os.nice(NICER)  # else its group has a weight
    limit_cpu(birth.plan.grant, most_used=_most_used(birth.plan))
    if cell.uid is not None:
        os.setresuid(cell.uid, cell.uid, cell.uid)
    die_with_parent(birth.keeper)
    if cell.ruleset is not None:
        restrict_to(cell.ruleset)
    os.closerange(CHANNEL + 1, MOST_FILES)


def warm_up(remote: Remote) -> None:
    """Do with `REHEARSED` what every task needs: memory that is shared with the keeper is copied at
    its first use, which may as well be before there is a task to be late for."""
    header, payload = remote.await_task()
    ChildContext(header, remote)
    data, _ = encode_result(msgspec.json.decode(payload))
    frame(RESULT, 0, data or b"")
    remote.say_nothing()
    loop = remote.loop
    if loop is not None:
        loop.add_reader(remote.fileno(), _ignore)  # a task that is there already is left for later
        loop.run_until_complete(loop.create_task(_nothing()))
        loop.remove_reader(remote.fileno())


async def _nothing() -> None:
    """Be run."""


def _ignore() -> None:
    """Be called where something has come."""


def _run(birth: Birth, header: TaskHeader, payload: bytes) -> tuple[bytes | None, Failure | None]:
    plan, remote = birth.plan, birth.remote
    grant = plan.grant
    try:
        if plan.command is not None:
            data, failure = run_command(
                plan,
                header,
                payload,
                remote,
                cell=birth.cell,
                filtered=birth.calls is not None,
            )
        elif birth.start is not None:
            result = birth.start(msgspec.Raw(payload), ChildContext(header, remote))
            if birth.is_async:
                result = remote.run(result)
            data, failure = encode_result(result)
        else:
            raise RuntimeError("a child without a handler")
    except BaseException as error:  # noqa: BLE001  whatever a handler raises is its outcome
        return None, breach_of(error, grant, birth.cell) or failure_of(error)
    if data is not None and len(data) > grant.output_mb * MIB:
        megabytes = len(data) / MIB
        why = f"the result has {megabytes:.1f} MiB, of {grant.output_mb:g} that are granted"
        return None, Failure("OutputExceeded", why)
    return data, failure
