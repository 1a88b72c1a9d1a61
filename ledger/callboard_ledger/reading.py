"""What a record of the journal says: decoded once, for the fold and the audit alike.

`read` is total: whatever stands in the journal gets a `Reading`, if only one that says what is
wrong with it. The actor and the resource are what the event itself claims.
"""

from __future__ import annotations

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_broker.subjects import REFUSED_TENANT, Address, Subjects
from callboard_broker.wire import (
    EVENTS,
    VERBS,
    Budget,
    Checkpoint,
    Command,
    Epoch,
    Event,
    Failure,
    FlowRun,
    Outcome,
    Post,
    Quarantined,
    decode_command,
    decode_event,
    decode_flow_run,
    decode_post,
)

__all__ = ["CLIENT", "ROUTER", "Reading", "read"]

CLIENT = "client"
ROUTER = "router"


class Reading(msgspec.Struct, gc=False):
    """One record, understood.

    address: whose it is and of which kind. event: None where there is nothing to decode, or where
    it could not be. resource: the id of the task or workflow it is about, or empty. actor:
    `client` (and who that says they are), `router`, or the host's name. problem: why it could not
    be read.
    """

    address: Address
    event: Post | FlowRun | Command | Event | None = None
    resource: str = ""
    actor: str = ROUTER
    problem: Failure | None = None


def read(subjects: Subjects, record: Record) -> Reading:
    """Say what `record` means. Never raises for anything that can stand in a journal."""
    address = subjects.parse(record.subject)
    kind = address.kind
    try:
        if kind == "post":
            return Reading(address, decode_post(record.data), str(record.seq), CLIENT)
        if kind in EVENTS:
            event = decode_event(kind, record.data)
            if isinstance(event, Outcome | Checkpoint):
                return Reading(address, event, event.task, event.host)
            if isinstance(event, Epoch):
                return Reading(address, event, "", event.router)
            if isinstance(event, Quarantined):
                return Reading(address, event, str(event.seq))
            if isinstance(event, Budget):
                return Reading(address, event, "", _client(event.by) if event.by else ROUTER)
            return Reading(address, event, event.task)
        if kind == "flow":
            if address.rest == "run":
                return Reading(address, decode_flow_run(record.data), str(record.seq), CLIENT)
            if address.rest in VERBS:
                command = decode_command(record.data)
                return Reading(address, command, command.id, _client(command.by))
            known = ", ".join(("run", *VERBS))
            why = f"{address.rest!r} is not a command of this version; use one of {known}"
            return Reading(address, None, str(record.seq), CLIENT, _bad("verb", why))
    except BadInput as error:
        resource, actor = (str(record.seq), CLIENT) if kind in ("post", "flow") else ("", ROUTER)
        if kind in ("outcome", "checkpoint"):
            actor = "host"
        return Reading(address, None, resource, actor, _bad(error.field, error.reason))
    if kind == "malformed":
        claimed = CLIENT if address.tenant == REFUSED_TENANT else ROUTER
        return Reading(address, None, "", claimed, _bad("subject", address.reason))
    unknown = _bad("kind", f"{kind!r} is not an event of this version")
    return Reading(address, None, "", ROUTER, unknown)


def _client(by: str) -> str:
    return f"{CLIENT} {by}" if by else CLIENT


def _bad(field: str, reason: str) -> Failure:
    return Failure("BadInput", reason, field=field)
