"""How schedules and commands stand in SQLite: the tables, and each row as a tuple and back.

Each table's first columns never change once a row is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from callboard_broker.wire import Cron, Failure
from callboard_ledger.budgets import Draws
from callboard_ledger.rows import CommandRow, Schedule
from callboard_ledger.sqlite_rows import error_text, upsert

__all__ = [
    "COMMAND_COLUMNS",
    "PUT_COMMAND",
    "PUT_SCHEDULE",
    "SCHEDULE_COLUMNS",
    "TABLES",
    "command_of",
    "command_row",
    "schedule_of",
    "schedule_row",
]

TABLES = {
    "schedules": """CREATE TABLE schedules (
        seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, capability TEXT NOT NULL,
        cron TEXT NOT NULL, priority INTEGER NOT NULL, posted_at INTEGER NOT NULL, shard INTEGER,
        state TEXT NOT NULL, ended_at INTEGER, end_seq INTEGER, error TEXT,
        number INTEGER NOT NULL, next_at INTEGER, cancel TEXT, paused INTEGER NOT NULL, draws TEXT
    );
    CREATE INDEX schedules_of_tenant ON schedules (tenant, seq);
    CREATE INDEX schedules_live ON schedules (seq) WHERE state = 'waiting'""",
    "commands": """CREATE TABLE commands (
        seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, verb TEXT NOT NULL, target TEXT NOT NULL,
        "by" TEXT NOT NULL, reason TEXT NOT NULL, shard INTEGER,
        posted_at INTEGER NOT NULL, source TEXT, edits INTEGER NOT NULL,
        end_seq INTEGER, state TEXT NOT NULL, error TEXT, done INTEGER NOT NULL
    );
    CREATE INDEX commands_about ON commands (target, seq);
    CREATE INDEX commands_open ON commands (seq) WHERE state = 'waiting'""",
}

SCHEDULE_COLUMNS = (
    "seq, tenant, capability, cron, priority, posted_at, shard, "
    "state, ended_at, end_seq, error, number, next_at, cancel, paused, draws"
)
COMMAND_COLUMNS = (
    'seq, tenant, verb, target, "by", reason, shard, posted_at, source, edits, '
    "end_seq, state, error, done"
)

PUT_SCHEDULE = upsert("schedules", SCHEDULE_COLUMNS, 7)
PUT_COMMAND = upsert("commands", COMMAND_COLUMNS, 10)

_json = msgspec.json.Encoder()
_failure = msgspec.json.Decoder(Failure)
_cron = msgspec.json.Decoder(Cron)
_draws = msgspec.json.Decoder(Draws)
_SCHEDULE_NAMES = SCHEDULE_COLUMNS.split(", ")
_COMMAND_NAMES = COMMAND_COLUMNS.replace('"', "").split(", ")


def schedule_row(schedule: Schedule) -> tuple[object, ...]:
    """As `PUT_SCHEDULE` takes it."""
    error = schedule.error
    return (
        schedule.seq,
        schedule.tenant,
        schedule.capability,
        _json.encode(schedule.cron).decode(),
        schedule.priority,
        schedule.posted_at,
        schedule.shard,
        schedule.state,
        schedule.ended_at,
        schedule.end_seq,
        None if error is None else error_text(error),
        schedule.number,
        schedule.next_at,
        schedule.cancel,
        schedule.paused,
        None if schedule.draws is None else _json.encode(schedule.draws).decode(),
    )


def schedule_of(row: Sequence[Any]) -> Schedule:
    """The schedule that `SCHEDULE_COLUMNS` describe."""
    fields = dict(zip(_SCHEDULE_NAMES, row, strict=True))
    error, cron = fields.pop("error"), _cron.decode(fields.pop("cron"))
    draws = fields.pop("draws")
    fields["draws"] = None if draws is None else _draws.decode(draws)
    fields["paused"] = bool(fields["paused"])
    return Schedule(**fields, cron=cron, error=None if error is None else _failure.decode(error))


def command_row(command: CommandRow) -> tuple[object, ...]:
    """As `PUT_COMMAND` takes it."""
    error = command.error
    return (
        command.seq,
        command.tenant,
        command.verb,
        command.target,
        command.by,
        command.reason,
        command.shard,
        command.posted_at,
        command.source,
        command.edits,
        command.end_seq,
        command.state,
        None if error is None else error_text(error),
        command.done,
    )


def command_of(row: Sequence[Any]) -> CommandRow:
    """The command that `COMMAND_COLUMNS` describe."""
    fields = dict(zip(_COMMAND_NAMES, row, strict=True))
    error = fields.pop("error")
    fields["edits"], fields["done"] = bool(fields["edits"]), bool(fields["done"])
    return CommandRow(**fields, error=None if error is None else _failure.decode(error))
