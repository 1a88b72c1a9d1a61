"""The messages, as msgspec structs in JSON; one struct an event of PROTOCOL.md.

A struct's tag is the event's `kind`, and it must equal the kind that the subject says: rights are
given by subject, so a body may not claim to be something else. Times are Unix milliseconds of the
server's clock and end in `_at`; durations are seconds. `v` is the schema's version: a reader
refuses a version that it does not know, by name.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from callboard_broker.bounds import check_document
from callboard_broker.errors import BadInput

__all__ = [
    "EVENTS",
    "Beat",
    "BlobRef",
    "Budget",
    "Dispatch",
    "Epoch",
    "Event",
    "Expanded",
    "Failure",
    "FlowRun",
    "Lost",
    "Merged",
    "Offer",
    "Outcome",
    "Post",
    "Quarantined",
    "Ref",
    "Settled",
    "Step",
    "TerminalState",
    "decode_beat",
    "decode_event",
    "decode_flow_run",
    "decode_post",
    "encode",
]

SCHEMA = 1

TerminalState = Literal["succeeded", "failed", "cancelled", "expired"]

Version = Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)]
Shard = Annotated[int, Meta(ge=0, le=255)]
Priority = Annotated[int, Meta(ge=0, le=9)]
Seconds = Annotated[float, Meta(gt=0, le=30 * 86_400)]
Key = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Capability = Annotated[str, Meta(min_length=1, max_length=128)]

NULL = Raw(b"null")

_EVENT_DEPTH = 256
"""Levels of an event: far below the interpreter's limit, which depends on who calls, and would let
two processes read one journal differently."""


class BlobRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payload in the blob store. digest: SHA-256, hex. size: bytes."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    size: Annotated[int, Meta(ge=0)]
    digest: Annotated[str, Meta(min_length=64, max_length=64)]


class Post(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A task is posted (`cb.task.<tenant>.<capability>`); every field may be left out.

    priority: 0 (last) to 9 (first). timeout: seconds that a handler may run.
    key: makes the post idempotent within its tenant. nonce: the client's own retry of one post.
    shard: where the poster listens for what becomes of it.
    """

    payload: Raw = NULL
    blob: BlobRef | None = None
    key: Key | None = None
    nonce: Key | None = None
    shard: Shard | None = None
    priority: Priority = 5
    timeout: Seconds | None = None
    v: Version = SCHEMA


class Ref(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{"from": "plan", "path": "files.0"}`: a value out of a step's result or of the inputs.

    source: a step's id, or `inputs`, or `item` (the element of a fan-out). path: dotted, may be
    empty for the whole value; a number selects from a list.
    """

    source: Name = msgspec.field(name="from")
    path: Annotated[str, Meta(max_length=256)] = ""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a workflow.

    payload: JSON in which each object `{"from": ..., "path": ...}` is replaced by what it names.
    after: steps that must have succeeded, beside those that payload and each refer to.
    each: run the step once per element of this list; the results form a list in its order.
    """

    id: Name
    capability: Capability
    payload: Raw = NULL
    after: list[Name] = []
    each: Ref | None = None
    priority: Priority = 5
    timeout: Seconds | None = None


class FlowRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workflow is posted (`cb.flow.<tenant>.run`).

    output: what the workflow's result is, a payload with references; without it, an object of the
    results of all steps on which no other depends.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    steps: Annotated[list[Step], Meta(min_length=1)]
    inputs: Raw = Raw(b"{}")
    output: Raw | UnsetType = UNSET
    key: Key | None = None
    nonce: Key | None = None
    shard: Shard | None = None
    v: Version = SCHEMA


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt or a task did not succeed. field: what a caller must change, if it is that.

    type: the error's class, or `BadInput`, `TimedOut`, `Lost`, ...
    """

    type: str
    message: str
    field: str | None = None
    trace: str | None = None


class Epoch(msgspec.Struct, frozen=True, tag_field="kind", tag="epoch"):
    """A router takes over; the sequence of this message is the fencing token of its writes."""

    router: str
    fold: int
    v: Version = SCHEMA


class Dispatch(msgspec.Struct, frozen=True, tag_field="kind", tag="dispatch", omit_defaults=True):
    """Attempt `attempt` of `task` runs from here on, and holds its tokens.

    secret: proves that an outcome is this attempt's. post: the journal sequence whose payload is
    to be read where it is too long to be repeated here. why: what the router knew.
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
    why: dict[str, int] = {}
    v: Version = SCHEMA


class Outcome(msgspec.Struct, frozen=True, tag_field="kind", tag="outcome", omit_defaults=True):
    """What a host says of an attempt that it ran: a result (or its blob), or an error."""

    task: str
    attempt: int
    secret: str
    host: str
    started_at: int
    ended_at: int
    result: Raw | UnsetType = UNSET
    blob: BlobRef | None = None
    error: Failure | None = None
    v: Version = SCHEMA


class Lost(msgspec.Struct, frozen=True, tag_field="kind", tag="lost", omit_defaults=True):
    """The router declares an attempt void; whatever it still does no longer counts."""

    task: str
    attempt: int
    epoch: int
    reason: str
    host: str | None = None
    v: Version = SCHEMA


class Settled(msgspec.Struct, frozen=True, tag_field="kind", tag="settled", omit_defaults=True):
    """The terminal event of a workflow, and of a task that did not succeed."""

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
    """A fan-out step of workflow `task` has `items` elements; or it cannot be expanded."""

    task: str
    step: str
    epoch: int
    items: int = 0
    error: Failure | None = None
    v: Version = SCHEMA


class Budget(msgspec.Struct, frozen=True, tag_field="kind", tag="budget"):
    """The limits in force from here on: `{"global": 8, "tenant": 8, "tenant/acme": 2}`."""

    epoch: int
    concurrency: dict[str, int]
    v: Version = SCHEMA


class Quarantined(msgspec.Struct, frozen=True, tag_field="kind", tag="quarantined"):
    """The message at sequence `seq` cannot be read; every fold passes over it."""

    seq: int
    epoch: int
    reason: str
    v: Version = SCHEMA


Event = Epoch | Dispatch | Outcome | Lost | Settled | Merged | Expanded | Budget | Quarantined


class Offer(msgspec.Struct, frozen=True):
    """A queue that a host serves. slots: attempts it can hold at once; free: of them, now."""

    capability: str
    slots: int
    free: int


class Beat(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host says, from outside its handlers' loop, that it lives and what it holds.

    incarnation: new at every start, and after every lease that the host let end.
    cpu: cores in use by the host's process. memory_mb: its resident set.
    gone: the incarnation has ended, on the word of the host itself or of its supervisor.
    fresh_from: the journal's last sequence when the connection that pulls work was made; what was
    stored before it, this host starts only on the router's word.
    """

    host: str
    incarnation: str
    pool: str
    offers: list[Offer] = []
    holds: list[tuple[str, int]] = []
    cpu: float = 0.0
    memory_mb: float = 0.0
    pid: int = 0
    node: str = ""
    gone: bool = False
    fresh_from: int = 0
    v: Version = SCHEMA

    def ends(self, incarnation: str) -> bool:
        """Whether this beat says that `incarnation` is over.

        A supervisor knows only the name that it gave its child; a child whose lease ended in
        between goes by that name with `.1`, `.2`, ... appended.
        """
        named = self.incarnation
        return self.gone and (incarnation == named or incarnation.startswith(named + "."))


_encoder = msgspec.json.Encoder()
_post = msgspec.json.Decoder(Post)
_flow_run = msgspec.json.Decoder(FlowRun)
_beat = msgspec.json.Decoder(Beat)
_value = msgspec.json.Decoder(Any)

EVENTS: dict[str, msgspec.json.Decoder[Any]] = {
    "epoch": msgspec.json.Decoder(Epoch),
    "dispatch": msgspec.json.Decoder(Dispatch),
    "outcome": msgspec.json.Decoder(Outcome),
    "lost": msgspec.json.Decoder(Lost),
    "settled": msgspec.json.Decoder(Settled),
    "merged": msgspec.json.Decoder(Merged),
    "expanded": msgspec.json.Decoder(Expanded),
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
    event: Event = _decode_foreign(decoder, data, _EVENT_DEPTH)
    return event


def decode_post(data: bytes, *, depth: int = 64) -> Post:
    """Read what anyone may have posted. Raises `BadInput` that names the field."""
    post: Post = _decode_foreign(_post, data, depth)
    _check_value(post.payload, "payload")
    return post


def decode_flow_run(data: bytes, *, depth: int = 64) -> FlowRun:
    """Read a workflow that anyone may have posted; `graph.chart` says whether it can run."""
    run: FlowRun = _decode_foreign(_flow_run, data, depth)
    _check_value(run.inputs, "inputs")
    for index, step in enumerate(run.steps):
        _check_value(step.payload, f"steps[{index}].payload")
    if run.output is not UNSET:
        _check_value(run.output, "output")
    return run


def decode_beat(data: bytes) -> Beat:
    """Read a host's beat. Raises `BadInput` that names the field."""
    beat: Beat = _decode_foreign(_beat, data, 8)
    return beat


def _decode_foreign(decoder: msgspec.json.Decoder[Any], data: bytes, depth: int) -> Any:
    check_document(data, depth=depth)
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _explain(error) from error


def _check_value(raw: Raw, field: str) -> None:
    """A `Raw` was only skipped over: its numbers and its UTF-8 are checked here."""
    try:
        _value.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(field, _shown(str(error))) from error


def _explain(error: Exception) -> BadInput:
    """msgspec says `Expected `int`, got `str` - at `$.priority``: the path is the field."""
    text, _, place = str(error).partition(" - at `")
    field = place.rstrip("`").removeprefix("$").lstrip(".") or "body"
    if text.startswith("Object ") and "`" in text:
        named = text.split("`")[1]
        field = named if field == "body" else f"{field}.{named}"
    return BadInput(_shown(field), _shown(text))


@functools.cache
def _control_characters() -> dict[int, str]:
    return {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)]}


def _shown(text: str) -> str:
    """`text` for a person: bounded, control characters escaped."""
    return text.translate(_control_characters())[:300]
