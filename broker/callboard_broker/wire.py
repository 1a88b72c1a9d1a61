"""The messages, as msgspec structs in JSON; one struct an event of PROTOCOL.md.

A struct's tag is the event's `kind`, and it must equal the kind that the subject says: rights are
given by subject, so a body may not claim to be something else. Times are Unix milliseconds of the
server's clock and end in `_at`; durations are seconds. `v` is the schema's version: a reader
refuses a version that it does not know, by name.

Whatever is on the wire is imported from here, also what stands in `posts`, `beats` and `limits`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from callboard_broker.beats import Beat, Offer, decode_beat
from callboard_broker.decoding import check_value, decode_foreign
from callboard_broker.errors import BadInput
from callboard_broker.limits import Limit, Quota
from callboard_broker.posts import (
    NULL,
    SCHEMA,
    VERBS,
    Amount,
    BlobRef,
    Command,
    Cron,
    FlowRun,
    Gate,
    Needs,
    Parent,
    Post,
    Ref,
    Retry,
    Shard,
    Step,
    SubFlow,
    Terms,
    Timeouts,
    Undo,
    Unit,
    Version,
    Word,
)

__all__ = [
    "EVENTS",
    "NULL",
    "VERBS",
    "Answered",
    "Beat",
    "BlobRef",
    "Budget",
    "Checkpoint",
    "Command",
    "Cron",
    "Dispatch",
    "Entered",
    "Epoch",
    "Event",
    "Expanded",
    "Failure",
    "Fired",
    "FlowRun",
    "Gate",
    "Halted",
    "Limit",
    "Lost",
    "Merged",
    "Needs",
    "Offer",
    "Outcome",
    "Parent",
    "Post",
    "Quarantined",
    "Quota",
    "Ref",
    "Retry",
    "Retrying",
    "Settled",
    "Skipped",
    "Snapshot",
    "Step",
    "SubFlow",
    "TerminalState",
    "Terms",
    "Timeouts",
    "Undo",
    "Usage",
    "decode_beat",
    "decode_command",
    "decode_event",
    "decode_flow_run",
    "decode_post",
    "encode",
]

TerminalState = Literal["succeeded", "failed", "cancelled", "expired"]

_EVENT_DEPTH = 256
"""Levels of an event: far below the interpreter's limit, which depends on who calls, and would let
two processes read one journal differently."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt or a task did not succeed. field: what a caller must change, if it is that.

    type: the error's class, or `BadInput`, `TimedOut`, `Lost`, ... final: no retry cures it.
    retry_after: seconds after which it is worth another try, if that is known.
    """

    type: str
    message: str
    field: str | None = None
    trace: str | None = None
    final: bool = False
    retry_after: float | None = None

    @property
    def line(self) -> str:
        """All that a person must know of it: `type: message`, with the field before the message."""
        field = f"{self.field}: " if self.field else ""
        return f"{self.type}: {field}{self.message}"


class Snapshot(msgspec.Struct, frozen=True):
    """The state after sequence `seq` lies in `blob`, as version `fold` writes it; see `State`."""

    seq: int
    fold: int
    digest: str
    blob: BlobRef


class Epoch(msgspec.Struct, frozen=True, tag_field="kind", tag="epoch"):
    """A router takes over; the sequence of this message is the fencing token of its writes.

    snapshot: the latest one that is known; it is written again with each.
    """

    router: str
    fold: int
    snapshot: Snapshot | None = None
    v: Version = SCHEMA


class Dispatch(msgspec.Struct, frozen=True, tag_field="kind", tag="dispatch", omit_defaults=True):
    """Attempt `attempt` of `task` runs from here on, and holds its tokens.

    secret: proves that an outcome is this attempt's. post: the journal sequence whose payload is
    to be read where it is too long to be repeated here. pool: set where `host` is: the dispatch
    went to that host's mailbox and not to the queue that its subject names.
    heartbeat: seconds, see `Timeouts`. why: what the router knew: candidates, scores, reason.
    restored: the last checkpoint of earlier attempts; or restored_at, the journal sequence of the
    `Checkpoint`, where it is too long to be repeated.
    root: the outermost task or workflow, where the id does not say it. trace: if one was given.
    """

    task: str
    attempt: int
    secret: str
    epoch: int
    shard: Shard
    start_by: int
    lease: float
    payload: Raw | UnsetType = UNSET
    blob: BlobRef | None = None
    post: int | None = None
    timeout: float | None = None
    heartbeat: float | None = None
    host: str | None = None
    pool: str = ""
    capability: str = ""
    why: dict[str, Any] = {}
    root: str = ""
    trace: str = ""
    restored: Raw | UnsetType = UNSET
    restored_at: int | None = None
    v: Version = SCHEMA


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a handler used in a child process or in a thread, as the kernel counted it.

    cpu_s, wall_s: seconds. memory_mb: of a child, its peak, beyond what it had when its task came.
    """

    cpu_s: Annotated[float, Meta(ge=0)] = 0.0
    memory_mb: Annotated[float, Meta(ge=0)] = 0.0
    wall_s: Annotated[float, Meta(ge=0)] = 0.0


class Outcome(msgspec.Struct, frozen=True, tag_field="kind", tag="outcome", omit_defaults=True):
    """What a host says of an attempt that it ran: a result (or its blob), or an error.

    used: what it used of the units that it reserved, or of others. layers: what kept its handler
    apart from the host, if it ran in a child process. usage: what it took there, or in a thread.
    agent, version: the handler's, as its host offers it.
    """

    task: str
    attempt: int
    secret: str
    host: str
    started_at: int
    ended_at: int
    result: Raw | UnsetType = UNSET
    blob: BlobRef | None = None
    error: Failure | None = None
    used: Annotated[dict[Unit, Amount], Meta(max_length=16)] = {}
    layers: Annotated[list[Word], Meta(max_length=16)] = []
    usage: Usage | None = None
    agent: Annotated[str, Meta(max_length=128)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""
    v: Version = SCHEMA


class Checkpoint(
    msgspec.Struct, frozen=True, tag_field="kind", tag="checkpoint", omit_defaults=True
):
    """What a handler wants its next attempt to begin with, should this one not come to its end.

    number: of the attempt's own, from 1; a later one takes the place of all before it.
    """

    task: str
    attempt: int
    secret: str
    host: str
    number: Annotated[int, Meta(ge=1)]
    value: Raw | UnsetType = UNSET
    blob: BlobRef | None = None
    v: Version = SCHEMA


class Lost(msgspec.Struct, frozen=True, tag_field="kind", tag="lost", omit_defaults=True):
    """The router declares an attempt void; whatever it still does no longer counts.

    started: a host held it; what nobody began counts apart, because no handler can be the cause.
    """

    task: str
    attempt: int
    epoch: int
    reason: str
    host: str | None = None
    started: bool = True
    v: Version = SCHEMA


class Settled(msgspec.Struct, frozen=True, tag_field="kind", tag="settled", omit_defaults=True):
    """The terminal event of a workflow, of a gate, and of a task that did not succeed."""

    task: str
    epoch: int
    state: TerminalState
    error: Failure | None = None
    result: Raw | UnsetType = UNSET
    blob: BlobRef | None = None
    v: Version = SCHEMA


class Merged(msgspec.Struct, frozen=True, tag_field="kind", tag="merged"):
    """The post at sequence `task` is the same as an earlier one: follow `same_as`."""

    task: str
    same_as: str
    epoch: int
    v: Version = SCHEMA


class Expanded(msgspec.Struct, frozen=True, tag_field="kind", tag="expanded", omit_defaults=True):
    """A fan-out step of workflow `task` has `items` elements; or it cannot be expanded.

    skipped: why it is not run at all. Without a step: the workflow's output cannot be made.
    """

    task: str
    step: str
    epoch: int
    items: int = 0
    error: Failure | None = None
    skipped: str = ""
    v: Version = SCHEMA


class Entered(msgspec.Struct, frozen=True, tag_field="kind", tag="entered", omit_defaults=True):
    """The step `task` is a workflow of its own, and begins with these inputs."""

    task: str
    epoch: int
    inputs: Raw | UnsetType = UNSET
    blob: BlobRef | None = None
    v: Version = SCHEMA


class Skipped(msgspec.Struct, frozen=True, tag_field="kind", tag="skipped"):
    """The condition of the step `task` does not hold."""

    task: str
    epoch: int
    reason: str
    v: Version = SCHEMA


class Retrying(msgspec.Struct, frozen=True, tag_field="kind", tag="retrying", omit_defaults=True):
    """The error of attempt `attempt` is followed by another one, not before `at`.

    avoid: hosts that shall not get it.
    """

    task: str
    attempt: int
    epoch: int
    at: int
    avoid: list[str] = []
    v: Version = SCHEMA


class Halted(msgspec.Struct, frozen=True, tag_field="kind", tag="halted"):
    """Workflow `task` shall end as `state`: nothing more of it begins, and what runs is stopped."""

    task: str
    epoch: int
    state: TerminalState
    reason: str
    v: Version = SCHEMA


class Fired(msgspec.Struct, frozen=True, tag_field="kind", tag="fired"):
    """Schedule `task` makes its task `number` now (0: none yet), and the next one at `next_at`."""

    task: str
    epoch: int
    number: int
    next_at: int
    v: Version = SCHEMA


class Answered(msgspec.Struct, frozen=True, tag_field="kind", tag="answered", omit_defaults=True):
    """The command at sequence `task` was carried out, or is refused with `error`."""

    task: str
    epoch: int
    error: Failure | None = None
    v: Version = SCHEMA


class Budget(msgspec.Struct, frozen=True, tag_field="kind", tag="budget", omit_defaults=True):
    """Budgets change. base: all that the settings say, if that is what changed.

    changed: budgets set on the running board; what one of them says comes before the settings,
    field by field; None takes it back. Keys: `global`, `tenant` (each that has no own entry),
    `tenant/acme`, `capability/review.python`, `tenant/acme/review.python`, `key/provider:openai`.
    """

    epoch: int
    base: dict[str, Limit] | None = None
    changed: dict[str, Limit | None] = {}
    by: str = ""
    v: Version = SCHEMA


class Quarantined(msgspec.Struct, frozen=True, tag_field="kind", tag="quarantined"):
    """The message at sequence `seq` cannot be read; every fold passes over it."""

    seq: int
    epoch: int
    reason: str
    v: Version = SCHEMA


Event = (
    Epoch
    | Dispatch
    | Outcome
    | Checkpoint
    | Lost
    | Settled
    | Merged
    | Expanded
    | Entered
    | Skipped
    | Retrying
    | Fired
    | Halted
    | Answered
    | Budget
    | Quarantined
)


_encoder = msgspec.json.Encoder()
_post = msgspec.json.Decoder(Post)
_flow_run = msgspec.json.Decoder(FlowRun)
_command = msgspec.json.Decoder(Command)

EVENTS: dict[str, msgspec.json.Decoder[Any]] = {
    "epoch": msgspec.json.Decoder(Epoch),
    "dispatch": msgspec.json.Decoder(Dispatch),
    "outcome": msgspec.json.Decoder(Outcome),
    "checkpoint": msgspec.json.Decoder(Checkpoint),
    "lost": msgspec.json.Decoder(Lost),
    "settled": msgspec.json.Decoder(Settled),
    "merged": msgspec.json.Decoder(Merged),
    "expanded": msgspec.json.Decoder(Expanded),
    "entered": msgspec.json.Decoder(Entered),
    "skipped": msgspec.json.Decoder(Skipped),
    "retrying": msgspec.json.Decoder(Retrying),
    "halted": msgspec.json.Decoder(Halted),
    "fired": msgspec.json.Decoder(Fired),
    "answered": msgspec.json.Decoder(Answered),
    "budget": msgspec.json.Decoder(Budget),
    "quarantined": msgspec.json.Decoder(Quarantined),
}
"""One decoder a kind: each refuses a body whose `kind` is another one's."""


def encode(message: object) -> bytes:
    """The JSON of a wire message. NaN and infinities become null, as msgspec has it."""
    return _encoder.encode(message)


def decode_event(kind: str, data: bytes) -> Event:
    """Read an event of the router or a host. Raises `BadInput` that names the field."""
    decoder = EVENTS.get(kind)
    if decoder is None:
        raise BadInput("kind", f"{kind!r} is not an event of this version")
    event: Event = decode_foreign(decoder, data, _EVENT_DEPTH)
    return event


def decode_post(data: bytes, *, depth: int = 64) -> Post:
    """Read what anyone may have posted. Raises `BadInput` that names the field."""
    post: Post = decode_foreign(_post, data, depth)
    check_value(post.payload, "payload")
    return post


def decode_flow_run(data: bytes, *, depth: int = 64) -> FlowRun:
    """Read a workflow that anyone may have posted; `graph.chart` says whether it can run."""
    run: FlowRun = decode_foreign(_flow_run, data, depth)
    check_value(run.inputs, "inputs")
    for index, step in enumerate(run.steps):
        check_value(step.payload, f"steps[{index}].payload")
    if run.output is not UNSET:
        check_value(run.output, "output")
    return run


def decode_command(data: bytes, *, depth: int = 64) -> Command:
    """Read what anyone may have asked of a task. Raises `BadInput` that names the field."""
    command: Command = decode_foreign(_command, data, depth)
    if command.payload is not UNSET:
        check_value(command.payload, "payload")
    return command
