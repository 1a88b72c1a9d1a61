"""What people ask of tasks and workflows: cancel, pause, resume, redrive, approve, signal.

A command is applied at its place in the journal or refused there, and waits to be answered. It
never ends a task and never takes a token: that is left to the router's own events.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.subjects import SHARDS, Address
from callboard_broker.wire import VERBS, Command, Failure, decode_command
from callboard_router.ending import revive
from callboard_router.flow import INLINE, Flow, Result
from callboard_router.posting import is_repeat
from callboard_router.recovery import rerun
from callboard_router.state import Answer, Schedule, State, Task
from callboard_router.stopping import cancel_task, halt, live_tasks, open_gates
from callboard_router.workflow import signal

__all__ = ["MAX_SIGNAL", "take_command"]

MAX_SIGNAL = 32 * 1024
"""Bytes of a signal's value: it stands in the state until its workflow ends."""


class _Refused(Exception):
    """Why a command is not carried out. `.failure`: what its poster is told."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


def take_command(state: State, address: Address, seq: int, data: bytes) -> None:
    """Carry the command at `seq` out, or note why not."""
    shard, failure = seq % SHARDS, None
    try:
        verb = address.rest
        if verb not in _VERBS:
            known = ", ".join(("run", *VERBS))
            raise BadInput("verb", f"{verb!r} is not a command of this version; use one of {known}")
        command = decode_command(data)
        if command.shard is not None:
            shard = command.shard
        if is_repeat(state, address.tenant, command.nonce, (str(seq), shard)):
            return
        _VERBS[verb](state, address.tenant, seq, command)
    except BadInput as error:
        failure = Failure("BadInput", error.reason, field=error.field)
    except _Refused as refused:
        failure = refused.failure
    state.answers[str(seq)] = Answer(address.tenant, shard, failure)
    state.fresh.append(str(seq))


def _find(state: State, tenant: str, name: str) -> Task | Flow | Schedule:
    """What is meant, if it is live."""
    found = state.tasks.get(name) or state.flows.get(name) or state.schedules.get(name)
    if found is None or found.tenant != tenant:
        raise _Refused(
            "UnknownTask",
            f"no task, workflow or schedule {name} of tenant {tenant} is live: "
            "it has ended, or never was",
        )
    return found


def _cancel(state: State, tenant: str, _seq: int, command: Command) -> None:
    reason = command.reason or (f"cancelled by {command.by}" if command.by else "cancelled")
    found = _find(state, tenant, command.id)
    if isinstance(found, Flow):
        halt(state, found, "cancelled", reason)
    elif isinstance(found, Schedule):
        found.cancel = reason
        state.fresh.append(found.id)
    else:
        cancel_task(state, found, reason)


def _pause(state: State, tenant: str, _seq: int, command: Command) -> None:
    _set_paused(state, _find(state, tenant, command.id), paused=True)


def _set_paused(state: State, found: Task | Flow | Schedule, *, paused: bool) -> None:
    if found.paused is paused:
        word = "paused already" if paused else "not paused, and has not ended: nothing to resume"
        raise _Refused("Conflict", f"{found.id} is {word}")
    found.paused = paused
    state.fresh.append(found.id)
    if isinstance(found, Flow):
        for task in live_tasks(state, found):
            state.fresh.append(task.id)


def _resume(state: State, tenant: str, seq: int, command: Command) -> None:
    name = command.id
    dead = state.dead_flows.get(name) or state.dead_flows.get(name.partition(".")[0])
    if dead is None:
        if state.dead.get(name, (0, None))[1] is not None:
            raise _Refused("Conflict", f"{name} is a task that has ended: use redrive")
        _set_paused(state, _find(state, tenant, name), paused=False)
        return
    flow = dead[1]
    if flow.tenant != tenant:
        raise _Refused("UnknownTask", f"no workflow {name} of tenant {tenant} has ended here")
    rerun(state, flow, command, seq)  # refuses before it changes anything
    del state.dead_flows[flow.id]


def _redrive(state: State, tenant: str, seq: int, command: Command) -> None:
    task = state.dead.get(command.id, (0, None))[1]
    if task is None or task.tenant != tenant:
        if command.id.partition(".")[0] in state.dead_flows:
            raise _Refused("Conflict", f"{command.id} belongs to a workflow: resume that")
        raise _Refused(
            "UnknownTask",
            f"{command.id} is not a dead letter of tenant {tenant}: "
            "it has not failed, or it was too long ago",
        )
    edited = isinstance(command.payload, msgspec.Raw)
    nothing = task.payload is None and task.blob is None and not task.payload_at
    if nothing and not edited:
        raise _Refused("Conflict", f"the post of {command.id} cannot be run: give it a payload")
    if not task.capability:
        raise _Refused("Conflict", f"{command.id} was refused as it was posted: post it anew")
    revive(state, task)
    if isinstance(command.payload, msgspec.Raw):
        short = len(command.payload) <= INLINE
        task.payload = bytes(command.payload) if short else None
        task.payload_at = seq
        task.blob = None


def _approve(state: State, tenant: str, seq: int, command: Command) -> None:
    gate = _gate(state, tenant, command.id)
    said = {"approved": command.approved, "by": command.by, "reason": command.reason}
    if command.approved:
        gate.decided = Result(seq, msgspec.json.encode(said))
    else:
        who = f" by {command.by}" if command.by else ""
        why = f"rejected{who}: {command.reason}" if command.reason else f"rejected{who}"
        gate.life.failure = Failure("Rejected", why, final=True)
    state.fresh.append(gate.id)


def _gate(state: State, tenant: str, name: str) -> Task:
    found = _find(state, tenant, name)
    gates = open_gates(state, found, "approval") if isinstance(found, Flow) else [found]
    if len(gates) != 1:
        which = ", ".join(gate.id for gate in gates[:8]) or "none"
        raise _Refused("Conflict", f"{name} has {len(gates)} open approvals ({which}): name one")
    gate = gates[0]
    if not isinstance(gate, Task) or not gate.is_gate or gate.flow is None:
        raise _Refused("Conflict", f"{name} does not wait for an approval")
    step = state.flows[gate.flow].graph.nodes[gate.step].step
    if step.gate is None or step.gate.kind != "approval":
        raise _Refused("Conflict", f"{name} does not wait for an approval")
    if gate.decided is not None or gate.life.failure is not None:
        raise _Refused("Conflict", f"{name} is decided already")
    return gate


def _signal(state: State, tenant: str, seq: int, command: Command) -> None:
    found = _find(state, tenant, command.id)
    if not isinstance(found, Flow):
        raise _Refused("Conflict", f"{command.id} is a task; a signal goes to a workflow")
    if command.name is None:
        raise BadInput("name", "a signal needs a name")
    value = bytes(command.payload) if isinstance(command.payload, msgspec.Raw) else b"null"
    if len(value) > MAX_SIGNAL:
        raise BadInput("payload", f"{len(value):,} bytes; a signal carries at most {MAX_SIGNAL:,}")
    signal(state, found, command.name, Result(seq, value))


_VERBS: dict[str, Callable[[State, str, int, Command], None]] = {
    "approve": _approve,
    "cancel": _cancel,
    "pause": _pause,
    "redrive": _redrive,
    "resume": _resume,
    "signal": _signal,
}
