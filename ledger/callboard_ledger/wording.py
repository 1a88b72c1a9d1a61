"""What an event of the journal says, in a few words."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from callboard_broker.wire import (
    Answered,
    Budget,
    Checkpoint,
    Command,
    Dispatch,
    Entered,
    Expanded,
    Failure,
    Fired,
    Halted,
    Lost,
    Merged,
    Outcome,
    Post,
    Quarantined,
    Retrying,
    Settled,
    Skipped,
)
from callboard_ledger.reading import Reading

__all__ = ["in_words"]


def in_words(reading: Reading) -> str:
    """For a timeline; one line."""
    event = reading.event
    if reading.problem is not None:
        return _failure(reading.problem)
    if isinstance(event, Command):
        return _command(reading.address.rest, event)
    if isinstance(event, Post):
        return _post(reading.address.rest, event)
    if isinstance(event, Dispatch):
        return _dispatch(reading, event)
    if isinstance(event, Outcome):
        result = "succeeded" if event.error is None else _failure(event.error)
        return f"attempt {event.attempt} on {event.host}: {result}{_used(event.used)}"
    if isinstance(event, Checkpoint):
        size = len(event.value) if isinstance(event.value, Raw) else 0
        size = size if event.blob is None else event.blob.size
        return f"attempt {event.attempt} on {event.host}: checkpoint {event.number}, {size:,} bytes"
    if isinstance(event, Lost):
        begun = "" if event.started else ", nobody had begun it"
        return f"attempt {event.attempt}: {event.reason}{begun}"
    if isinstance(event, Settled):
        return event.state if event.error is None else f"{event.state}: {_failure(event.error)}"
    return _decided(reading, event)


def _decided(reading: Reading, event: object) -> str:
    """What else a router says."""
    if isinstance(event, Retrying):
        elsewhere = f", not on {', '.join(event.avoid)}" if event.avoid else ""
        return f"attempt {event.attempt} is followed by another one at {_time(event.at)}{elsewhere}"
    if isinstance(event, Merged):
        return f"the same as {event.same_as}"
    if isinstance(event, Expanded):
        if event.error is not None:
            return f"{event.step or 'output'}: {_failure(event.error)}"
        return f"{event.step}: {event.skipped or f'{event.items} items'}"
    if isinstance(event, Entered):
        return "a workflow of its own begins"
    if isinstance(event, Skipped):
        return f"skipped: {event.reason}"
    if isinstance(event, Halted):
        return f"shall end as {event.state}: {event.reason}"
    if isinstance(event, Fired):
        made = f"task {event.number}; " if event.number else ""
        return f"{made}the next one at {_time(event.next_at)}"
    if isinstance(event, Answered):
        return "carried out" if event.error is None else f"refused: {_failure(event.error)}"
    if isinstance(event, Budget):
        return _budget(event)
    return event.reason if isinstance(event, Quarantined) else reading.address.rest


def _command(verb: str, event: Command) -> str:
    """`resume from build with edited inputs, by ann: try again`."""
    said = "reject" if verb == "approve" and not event.approved else verb
    if event.name is not None:
        said += f" {event.name}"
    if event.source is not None:
        said += f" from {event.source}"
    if isinstance(event.payload, Raw):
        said += " with a value" if verb == "signal" else " with edited inputs"
    by = f", by {event.by}" if event.by else ""
    return f"{said}{by}: {event.reason}" if event.reason else f"{said}{by}"


def _post(capability: str, event: Post) -> str:
    said = capability
    if event.cron is not None:
        said += f", at each {event.cron.expression} ({event.cron.zone})"
    if event.delay is not None:
        said += f", after {event.delay:g} s"
    if event.parent is not None:
        said += f", spawned by attempt {event.parent.attempt} of {event.parent.task}"
    return said


def _dispatch(reading: Reading, event: Dispatch) -> str:
    address = reading.address
    pool, capability = event.pool or address.pool, event.capability or address.rest
    box = f", to the mailbox of {address.box}" if address.box else ""
    return f"attempt {event.attempt} to {pool}/{capability}{box}"


def _budget(event: Budget) -> str:
    keys = sorted(event.changed)
    said = [f"{key}: {_limit(event.changed[key])}" for key in keys]
    if event.base is not None:
        said.insert(0, f"the settings say {len(event.base)} budgets")
    return "; ".join(said)


def _limit(limit: object) -> str:
    if limit is None:
        return "as in the settings"
    fields = msgspec.to_builtins(limit)
    return ", ".join(f"{name} {fields[name]}" for name in sorted(fields))


def _used(used: dict[str, float]) -> str:
    units = ", ".join(f"{used[unit]:g} {unit}" for unit in sorted(used))
    return f", used {units}" if units else ""


def _failure(failure: Failure) -> str:
    field = f" ({failure.field})" if failure.field else ""
    return f"{failure.type}{field}: {failure.message}"


def _time(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"
