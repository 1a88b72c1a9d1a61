"""One root for everything Callboard raises; each leaf also inherits the matching builtin.

CallboardError
+-- BadInput (ValueError)            a value from outside; `.field` names it
|   +-- TooLarge
+-- BoardUnreachable (ConnectionError)
+-- StreamMissing (LookupError)
+-- StreamDrift (RuntimeError)       a stream exists with other settings than ours
+-- WriteRefused (RuntimeError)      the server refused a guarded write
+-- WriteUnresolved (TimeoutError)   nobody knows whether a write was stored
+-- ServerFailed (RuntimeError)      the embedded nats-server did not start or died
|   +-- StoreLocked
+-- TaskError (RuntimeError)         a task ended without success; `.task`, `.error`
|   +-- TaskFailed
|   +-- TaskCancelled
|   +-- TaskExpired (TimeoutError)
+-- UnknownTask (LookupError)
+-- CommandRefused (RuntimeError)    the router does not do what was asked of a task
+-- CommandUnanswered (TimeoutError) it is stored, and no router has answered it yet
+-- Overloaded (RuntimeError)        a tenant has too much waiting; `.retry_after`
+-- ResourcesExhausted (RuntimeError) what is to be allocated is not free
+-- AuditBroken (RuntimeError)
+-- TargetAway (ConnectionError)     a projector's database does not answer, or not now
+-- TargetRefused (RuntimeError)     it refused a call; `.sqlstate`
+-- SchemaMissing (LookupError)      it lacks tables; `.missing`
+-- JournalMissing (LookupError)     it and the journal do not fit together
"""

from __future__ import annotations

from callboard_config.nats_url import mask_nats_url

__all__ = [
    "AuditBroken",
    "BadInput",
    "BoardUnreachable",
    "CallboardError",
    "CommandRefused",
    "CommandUnanswered",
    "JournalMissing",
    "Overloaded",
    "ResourcesExhausted",
    "SchemaMissing",
    "ServerFailed",
    "StoreLocked",
    "StreamDrift",
    "StreamMissing",
    "TargetAway",
    "TargetRefused",
    "TaskCancelled",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TooLarge",
    "UnknownTask",
    "WriteRefused",
    "WriteUnresolved",
]


class CallboardError(Exception):
    """The root: catch it to catch everything that Callboard raises on purpose."""


class BadInput(CallboardError, ValueError):
    """A value from outside is not acceptable. `.field` names the field that must change."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class TooLarge(BadInput):
    """A payload, name or document is over its limit."""


class BoardUnreachable(CallboardError, ConnectionError):
    """No NATS server answers at `.url`."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"no NATS server answers at {mask_nats_url(url)} ({reason}); start one with "
            "`callboard up`, or name another with --nats URL or CALLBOARD_NATS_URL"
        )
        self.url = url


class StreamMissing(CallboardError, LookupError):
    """The server has no stream `.stream`."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"the server has no stream {stream}; start the router once (`callboard up` or "
            "`callboard router`): it creates the streams"
        )
        self.stream = stream


class StreamDrift(CallboardError, RuntimeError):
    """Stream `.stream` exists, but with settings on which Callboard's guarantees do not hold."""

    def __init__(self, stream: str, differences: dict[str, tuple[object, object]]) -> None:
        listed = "; ".join(
            f"{name} is {found!r}, must be {wanted!r}"
            for name, (found, wanted) in sorted(differences.items())
        )
        super().__init__(
            f"stream {stream} has drifted: {listed}. Restore these settings, or use another "
            "prefix for this board"
        )
        self.stream = stream
        self.differences = differences


class WriteRefused(CallboardError, RuntimeError):
    """The server refused a write. `.code` is JetStream's error code (10071: the guard failed)."""

    def __init__(self, subject: str, code: int, description: str) -> None:
        super().__init__(f"the server refused a write to {subject}: {description} ({code})")
        self.subject = subject
        self.code = code
        self.description = description


class WriteUnresolved(CallboardError, TimeoutError):
    """No answer came: the write may or may not have been stored. Never repeat it blindly."""

    def __init__(self, subject: str, seconds: float) -> None:
        super().__init__(f"no answer to a write to {subject} within {seconds:g} s")
        self.subject = subject
        self.seconds = seconds


class ServerFailed(CallboardError, RuntimeError):
    """The embedded nats-server did not start, or died."""


class StoreLocked(ServerFailed):
    """Another process already runs a server on this store directory."""


class TaskError(CallboardError, RuntimeError):
    """A task reached a terminal event that is not success."""

    def __init__(self, task: str, message: str, error: object = None) -> None:
        super().__init__(f"task {task}: {message}")
        self.task = task
        self.error = error


class TaskFailed(TaskError):
    """The task failed for good; `.error` is the recorded error (type, message, field)."""


class TaskCancelled(TaskError):
    """The task was cancelled."""


class TaskExpired(TaskError, TimeoutError):
    """The task's deadline passed before it could finish."""


class UnknownTask(CallboardError, LookupError):
    """The ledger knows no task or workflow with this id in this tenant."""

    def __init__(self, task: str, tenant: str) -> None:
        super().__init__(f"tenant {tenant} has no task or workflow {task}; see `callboard list`")
        self.task = task
        self.tenant = tenant


class CommandRefused(CallboardError, RuntimeError):
    """The router refuses `.verb` of task `.task`; `.error` is the recorded reason."""

    def __init__(self, verb: str, task: str, message: str, error: object = None) -> None:
        super().__init__(f"{verb} {task}: {message}")
        self.verb = verb
        self.task = task
        self.error = error


class CommandUnanswered(CallboardError, TimeoutError):
    """A command is stored as event `.seq`; a router carries it out as soon as one is active."""

    def __init__(self, verb: str, task: str, seq: str, seconds: float) -> None:
        super().__init__(
            f"{verb} {task}: no router has answered within {seconds:g} s. The command is stored "
            f"(event {seq}) and counts as soon as a router runs; see `callboard status`"
        )
        self.verb = verb
        self.task = task
        self.seq = seq
        self.seconds = seconds


class Overloaded(CallboardError, RuntimeError):
    """Tenant `.tenant` has as much waiting as it may; post again after `.retry_after` seconds."""

    def __init__(self, tenant: str, retry_after: float) -> None:
        super().__init__(
            f"tenant {tenant} has as many tasks waiting as it may; try again in "
            f"{retry_after:.1f} s, or raise its limit: callboard budget set tenant/{tenant} "
            "waiting=N"
        )
        self.tenant = tenant
        self.retry_after = retry_after


class ResourcesExhausted(CallboardError, RuntimeError):
    """What shall be allocated for `.wanted` is not free; the message says what is lacking."""

    def __init__(self, wanted: str, lacking: str) -> None:
        super().__init__(f"nothing is free for {wanted}: {lacking}")
        self.wanted = wanted
        self.lacking = lacking


class AuditBroken(CallboardError, RuntimeError):
    """The audit log and the journal do not agree; `.findings` says where."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("the audit log does not verify: " + "; ".join(findings))
        self.findings = findings


class TargetAway(CallboardError, ConnectionError):
    """A projector's database does not answer, or not now: the same call may succeed later."""


class TargetRefused(CallboardError, RuntimeError):
    """A projector's database refused a call. `.sqlstate` says why, as Postgres does."""

    def __init__(self, sqlstate: str, reason: str) -> None:
        super().__init__(f"{reason} (SQLSTATE {sqlstate})")
        self.sqlstate = sqlstate
        self.reason = reason


class SchemaMissing(CallboardError, LookupError):
    """A projector's database lacks the migrations `.missing`, or (empty) all tables.

    command: of `callboard`, what applies them.
    """

    def __init__(self, target: str, missing: list[str], *, command: str = "projector") -> None:
        what = f"the migrations {', '.join(missing)}" if missing else "the tables of Callboard"
        super().__init__(
            f"{target} lacks {what}; run `callboard {command} migrate`, or `supabase db push` for "
            "a Supabase project"
        )
        self.missing = missing


class JournalMissing(CallboardError, LookupError):
    """A projector's database and the journal do not fit together: one lacks what the other has.

    `.position`: of the database; `.first`, `.last`: of the journal.
    """

    def __init__(self, target: str, position: int, first: int, last: int) -> None:
        if position > last:
            why = f"the journal ends at {last}: it was cut, or restored from an older backup"
            what = "give the projector an empty database, or restore a newer journal"
        else:
            why = f"the journal begins at {first}: what is between was removed"
            what = (
                "name the directory of a ledger that has it with --ledger, or restore the journal"
            )
        super().__init__(f"{target} is at {position}, and {why}; {what}")
        self.first, self.last, self.position = first, last, position
