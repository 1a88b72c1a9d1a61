"""What anyone may write: posts, workflows and commands, and the terms on which tasks are worked on.

Every field has a bound of its own, and an unknown one is refused by name; `wire` decodes. Where a
step of a workflow and a posted task may say the same thing, they say it by `Terms`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from callboard_broker.trace import TraceId

__all__ = [
    "NULL",
    "SCHEMA",
    "VERBS",
    "Amount",
    "BlobRef",
    "Capability",
    "Command",
    "Cron",
    "FlowRun",
    "Gate",
    "Name",
    "Needs",
    "Parent",
    "Post",
    "Priority",
    "Ref",
    "Retry",
    "Seconds",
    "Shard",
    "Step",
    "SubFlow",
    "TaskId",
    "Terms",
    "Timeouts",
    "Undo",
    "Unit",
    "Version",
    "Word",
]

SCHEMA = 1

Version = Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)]
Shard = Annotated[int, Meta(ge=0, le=255)]
Priority = Annotated[int, Meta(ge=0, le=9)]
Seconds = Annotated[float, Meta(gt=0, le=30 * 86_400)]
Key = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Capability = Annotated[str, Meta(min_length=1, max_length=128)]
TaskId = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,18}(\.[a-z0-9_.-]{1,492})?$")]
Word = Annotated[str, Meta(min_length=1, max_length=128)]
BudgetName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.:-]{0,62}$")]
VersionRange = Annotated[
    str,
    Meta(max_length=128, pattern=r"^( *(~=|[=!<>]=|[<>]) *v?[0-9][0-9A-Za-z.*+!_-]* *(,|$))*$"),
]
Unit = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Amount = Annotated[float, Meta(ge=0, le=1e15)]

NULL = Raw(b"null")


class BlobRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payload in the blob store. digest: SHA-256, hex. size: bytes."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    size: Annotated[int, Meta(ge=0)]
    digest: Annotated[str, Meta(min_length=64, max_length=64)]


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Seconds. queue: from ready to the first dispatch. start: from a dispatch to its handler.

    heartbeat: between two signs of life of a running handler (`ctx.progress`, `ctx.heartbeat`).
    total: from the post (of a step: from when it became ready) to the end, retries included.
    """

    queue: Seconds | None = None
    start: Seconds | None = None
    heartbeat: Seconds | None = None
    total: Seconds | None = None


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What follows an error: attempt n+1 after a random time up to min(delay*factor^(n-1), max).

    attempts: at most, the first one included; lost ones do not count. delay, max_delay: seconds.
    not_on: types of error that no retry cures. elsewhere: avoid the hosts that have failed.
    """

    attempts: Annotated[int, Meta(ge=1, le=1000)] = 1
    delay: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_delay: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    not_on: Annotated[list[Word], Meta(max_length=32)] = []
    elsewhere: bool = False


class Needs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the agent must be, beside its capability. cpu: cores. memory_mb: free, on its host.

    specialization: all of these. version: a range such as `>=1.2,<2`. labels: with these values.
    stay_with: the host that ran this step of the workflow, or the host of this name; once it is
    gone, any. avoid: hosts or agents by name.
    """

    specialization: Annotated[list[Word], Meta(max_length=32)] = []
    version: VersionRange = ""
    labels: Annotated[dict[Word, Word], Meta(max_length=32)] = {}
    cpu: Annotated[float, Meta(gt=0, le=4096)] | None = None
    memory_mb: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    stay_with: Word | None = None
    avoid: Annotated[list[Word], Meta(max_length=32)] = []


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """On what terms a task is worked on; every field may be left out.

    budgets: further budgets that it draws on, by name (`provider:openai`). units: what an attempt
    reserves of each unit (`{"tokens": 2000}`) from all of its budgets that limit it.
    """

    timeouts: Timeouts | None = None
    retry: Retry | None = None
    needs: Needs | None = None
    budgets: Annotated[list[BudgetName], Meta(max_length=16)] = []
    units: Annotated[dict[Unit, Amount], Meta(max_length=16)] = {}

    def plain_terms(self) -> Terms | None:
        """The terms alone, without what a subclass adds; None if there are none."""
        if not (self.timeouts or self.retry or self.needs or self.budgets or self.units):
            return None
        return Terms(self.timeouts, self.retry, self.needs, self.budgets, self.units)


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The attempt that spawned a task; the post counts only while it is the current one."""

    task: TaskId
    attempt: Annotated[int, Meta(ge=1)]
    secret: Annotated[str, Meta(max_length=64)]


class Cron(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A schedule. expression: five fields, as in crontab(5). zone: of the IANA database.

    overlap: post the next task although the one before has not ended.
    """

    expression: Annotated[str, Meta(min_length=1, max_length=256)]
    zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    overlap: bool = False


class Post(Terms, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A task is posted (`cb.task.<tenant>.<capability>`); every field may be left out.

    priority: 0 (last) to 9 (first). timeout: seconds that a handler may run. delay: seconds before
    it may start. cron: it is a schedule, and each of its times makes a task of its own.
    key: makes the post idempotent within its tenant. nonce: the client's own retry of one post.
    shard: where the poster listens for what becomes of it. parent: set where an agent spawned it.
    trace: what it is a part of; else that of its parent, or one of its own.
    """

    payload: Raw = NULL
    blob: BlobRef | None = None
    key: Key | None = None
    nonce: Key | None = None
    shard: Shard | None = None
    priority: Priority = 5
    timeout: Seconds | None = None
    delay: Seconds | None = None
    cron: Cron | None = None
    parent: Parent | None = None
    trace: TraceId | None = None
    v: Version = SCHEMA


class Ref(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{"from": "plan", "path": "files.0"}`: a value out of a step's result or of the inputs.

    source: a step's id, or `inputs`, or `item` (the element of a fan-out). path: dotted, may be
    empty for the whole value; a number selects from a list.
    """

    source: Name = msgspec.field(name="from")
    path: Annotated[str, Meta(max_length=256)] = ""


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A step that nobody works on: it waits for a person's approval, or for a signal by name.

    prompt: what the person is asked.
    """

    kind: Literal["approval", "signal"] = "approval"
    signal: Name | None = None
    prompt: Annotated[str, Meta(max_length=1024)] = ""


class Undo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What undoes a step that has succeeded, if the workflow fails or is cancelled later."""

    capability: Capability
    payload: Raw = NULL


class SubFlow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workflow inside a step; the step's payload is its inputs."""

    steps: Annotated[list[Step], Meta(min_length=1)]
    output: Raw | UnsetType = UNSET
    at_once: Annotated[int, Meta(ge=1)] | None = None


class Step(Terms, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One step of a workflow: work for a capability, or a gate, or a workflow of its own.

    payload: JSON in which each object `{"from": ..., "path": ...}` is replaced by what it names.
    after: steps that come before, beside those that payload, when and each refer to.
    each: run the step once per element of this list; the results form a list in its order.
    at_once: elements that may run at the same time. join: which of the steps before, counted by
    elements, must succeed: all, any one, a number of them, or none (`best_effort` waits for the
    end of all); whatever a number or `any` no longer needs is cancelled. when: a condition on
    upstream results (`conditions`); where it does not hold, the step is skipped.
    compensate: what undoes it.
    """

    id: Name
    capability: Annotated[str, Meta(max_length=128)] = ""
    payload: Raw = NULL
    after: list[Name] = []
    each: Ref | None = None
    at_once: Annotated[int, Meta(ge=1)] | None = None
    join: Literal["all", "any", "best_effort"] | Annotated[int, Meta(ge=1)] = "all"
    when: Raw | UnsetType = UNSET
    gate: Gate | None = None
    flow: SubFlow | None = None
    compensate: Undo | None = None
    priority: Priority = 5
    timeout: Seconds | None = None


class FlowRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workflow is posted (`cb.flow.<tenant>.run`).

    output: what the workflow's result is, a payload with references; without it, an object of the
    results of all steps on which no other depends. timeout: seconds until it expires as a whole.
    at_once: tasks of it that may run at the same time. trace: what it is a part of.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    steps: Annotated[list[Step], Meta(min_length=1)]
    inputs: Raw = Raw(b"{}")
    output: Raw | UnsetType = UNSET
    key: Key | None = None
    nonce: Key | None = None
    shard: Shard | None = None
    timeout: Seconds | None = None
    at_once: Annotated[int, Meta(ge=1)] | None = None
    trace: TraceId | None = None
    v: Version = SCHEMA


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What someone asks of a task or workflow (`cb.flow.<tenant>.<verb>`); see `VERBS`.

    id: the task, workflow or step meant. by: who asks, as they say. name, payload: a signal and
    its value. payload: also the edited payload of a redrive, or the edited inputs of a resume.
    approved: what an approval says. source: the step from which a resume runs again.
    """

    id: TaskId
    reason: Annotated[str, Meta(max_length=1024)] = ""
    by: Annotated[str, Meta(max_length=256)] = ""
    name: Name | None = None
    payload: Raw | UnsetType = UNSET
    approved: bool = True
    source: Name | None = msgspec.field(name="from", default=None)
    nonce: Key | None = None
    shard: Shard | None = None
    v: Version = SCHEMA


VERBS = ("approve", "cancel", "pause", "redrive", "resume", "signal")
"""What may be asked. resume: goes on after a pause; of a workflow that has ended without success,
runs again what failed and what depends on it. redrive: runs a dead letter again."""
