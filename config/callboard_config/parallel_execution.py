"""parallel_execution_config.yaml: the board, its server, and the timing of work on it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from callboard_config.cerebral import CerebralSettings
from callboard_config.log_settings import LogSettings
from callboard_config.nats_url import check_nats_url
from callboard_config.projection import ProjectionSettings
from callboard_config.section import Name, Section, StorePath, disagreement

__all__ = [
    "AuditSettings",
    "BoardSettings",
    "EmbeddedSettings",
    "JournalSettings",
    "LeaseSettings",
    "LedgerSettings",
    "MetricsSettings",
    "NatsSettings",
    "ParallelExecution",
    "PayloadSettings",
    "QueueSettings",
    "RetrySettings",
    "RouterSettings",
    "WorkflowSettings",
]

Seconds = Annotated[float, Field(gt=0, le=86_400)]
MessageBytes = Annotated[int, Field(ge=256, le=1_000_000)]


def _check_url(url: str | None) -> str | None:
    return None if url is None else check_nats_url(url)


class BoardSettings(Section):
    """The board: one journal and everything that hangs on it."""

    prefix: Name
    """First token of every subject. Two boards can share a server by different prefixes."""


class EmbeddedSettings(Section):
    """The nats-server that `callboard up` starts when no address is given."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")]
    """Address it listens on. 127.0.0.1, because it asks nobody for a password."""

    port: Annotated[int, Field(ge=1, le=65_535)]
    """TCP port it listens on; a taken one is refused."""

    store: StorePath
    """Its private store directory; null: in the project's `.callboard/` folder."""

    sync: Literal["default", "always"]
    """When the server calls fsync. `default`: every two minutes, so a power cut (not a crash of
    the process) may lose acknowledged posts; `always`: before each acknowledgement, about ten
    times slower unless writes are batched."""


class NatsSettings(Section):
    """Which NATS server."""

    url: Annotated[str | None, Field(repr=False), AfterValidator(_check_url)]
    """`nats://host:4222` or `tls://...`, several servers of one cluster separated by commas;
    null: the running `callboard up`. Hidden in repr, because it may hold a password."""

    embedded: EmbeddedSettings


class JournalSettings(Section):
    """The stream that holds everything that happened."""

    replicas: Annotated[int, Field(ge=1, le=5)]
    """Copies of each stream in a NATS cluster: 3 survives the loss of one server, 5 of two."""

    retention_days: Annotated[float, Field(ge=0, le=36_500)]
    """Days for which every message is kept at the least. Older ones are removed once no live task,
    no snapshot and no ledger needs them any more."""


class LeaseSettings(Section):
    """When an attempt counts as lost: its host's beats are the lease."""

    beat_seconds: Seconds
    """Seconds between two beats of a host."""

    suspect_seconds: Seconds
    """Seconds of silence after which a host gets no new work: a few missed beats, so that a
    pause of its garbage collector or network does not count."""

    lease_seconds: Seconds
    """Seconds of silence after which the host's attempts are lost and run again elsewhere.
    Longer than a change of the NATS cluster's leader (4-14 s), which would else kill every long
    LLM call; shorter means faster recovery from a dead host."""

    hung_seconds: Seconds
    """Seconds for which a host's process may give its supervisor no sign of life before it is
    killed and started again; a handler that blocks the event loop does not count. Three beats at
    the least."""

    start_seconds: Seconds
    """Seconds after its dispatch within which a host must have started an attempt."""

    lost_limit: Annotated[int, Field(ge=1, le=1000)]
    """Lost attempts after which a task fails for good: it probably kills its hosts."""

    @model_validator(mode="after")
    def _beat_suspect_lease_in_this_order(self) -> Self:
        if self.beat_seconds >= self.suspect_seconds:
            raise disagreement(
                "a host must be able to beat before it is suspected: keep beat < suspect",
                "beat_seconds",
                "suspect_seconds",
            )
        if self.suspect_seconds >= self.lease_seconds:
            raise disagreement(
                "a host is suspected before its lease ends: keep suspect < lease",
                "suspect_seconds",
                "lease_seconds",
            )
        return self


class RouterSettings(Section):
    """The one active router of a journal, and those that stand by."""

    standby_seconds: Seconds
    """Seconds that the active router may be silent before a standby takes over."""

    unresolved_seconds: Seconds
    """Seconds without the server's answer after which a write counts as unresolved: the router
    then starts a new epoch instead of repeating it blindly."""

    snapshot_events: Annotated[int, Field(ge=1000, le=1_000_000_000)]
    """Events after which the router writes down its state. A starting router reads the latest
    snapshot and folds what came after it: 100,000 events take a second or two."""

    snapshot_seconds: Seconds
    """Seconds after which it does so although fewer events came (but a thousand)."""


class QueueSettings(Section):
    """In which order a tenant's tasks run."""

    ageing_seconds: Annotated[float, Field(ge=0, le=86_400)]
    """Seconds of waiting that are worth one level of priority: a task of priority 0 comes before
    one of priority 9 that was posted nine times this later, so none waits for ever. 0: priorities
    do not count."""


class RetrySettings(Section):
    """What follows an error, for tasks that say nothing of it: attempt n+1 after a random time of
    up to delay * factor^(n-1), so that those that failed together do not come back together."""

    attempts: Annotated[int, Field(ge=1, le=1000)]
    """Attempts at most, the first one included. 1: an error is final, because only whoever wrote
    an agent knows whether it may run twice."""

    delay: Annotated[float, Field(ge=0, le=86_400)]
    """Seconds."""

    factor: Annotated[float, Field(ge=1, le=100)]
    """By which the delay grows from attempt to attempt."""

    max_delay: Annotated[float, Field(ge=0, le=86_400)]
    """Seconds that the delay never exceeds."""


class PayloadSettings(Section):
    """How large a payload may be, and where it lies."""

    blob_bytes: MessageBytes
    """Bytes of a result above which it goes to the blob store instead of the journal."""

    post_bytes: MessageBytes
    """Bytes of a post above which its payload goes to the blob store. The server's own limit of
    a message is 1 MiB, headers included."""


class LedgerSettings(Section):
    """The reader that keeps state and audit."""

    store: StorePath
    """Where its embedded database lies; null: in the project's `.callboard/` folder."""

    flush_seconds: Annotated[float, Field(gt=0, le=60)]
    """Seconds after which events are written at the latest: how old `status` may be."""

    batch: Annotated[int, Field(ge=1, le=100_000)]
    """Events written in one transaction at most: one commit for many events is what makes the
    ledger keep up."""


class AuditSettings(Section):
    """The log that proves what happened: who signs it, where it is kept besides the server."""

    key: StorePath
    """File of the private key that signs the log; null: `audit.key` in the ledger's directory,
    made at the first start, readable by its owner only."""

    checkpoints: StorePath
    """File that audit checkpoints are appended to; null: `checkpoints` in the ledger's directory.
    On another disk or machine it also shows what whoever has the ledger's disk did."""

    checkpoint_url: Annotated[str, Field(pattern=r"^https?://", max_length=2000)] | None
    """Where each audit checkpoint is also sent, by HTTP POST; null: nowhere."""

    checkpoint_seconds: Annotated[float, Field(ge=0.1, le=86_400)]
    """Seconds between two audit checkpoints while there is something new: what was audited after
    the last one may be cut off unnoticed."""

    checkpoint_events: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """Events after which an audit checkpoint does not wait for its time."""

    archive: StorePath
    """Folder of the compressed segments that are written before the journal's old end is purged;
    null: `archive` in the ledger's directory."""

    archive_purged: bool
    """Whether they are written; false: what is purged is gone, and only its hashes stay."""


class WorkflowSettings(Section):
    """How large a workflow may grow."""

    max_items: Annotated[int, Field(ge=1, le=1_000_000)]
    """Items of a list that one step may fan out over."""


class ScalingSettings(Section):
    """How a supervisor makes its agent processes more or fewer (`agents run --max`)."""

    wait_seconds: Annotated[float, Field(ge=0, le=3600)]
    """Seconds that a task waits before another process is started."""

    quiet_seconds: Annotated[float, Field(ge=0, le=86_400)]
    """Seconds that one process less must have sufficed before there is one less."""

    idle_seconds: Annotated[float, Field(ge=0, le=86_400)]
    """Seconds without any task before the last process ends, where `--min 0` allows it."""

    busy: Annotated[float, Field(gt=0, le=1)]
    """The part of the CPUs in use above which no process is started."""

    reserve_mb: Annotated[float, Field(ge=0, le=1e9)]
    """MiB of memory that new processes leave free."""


class MetricsSettings(Section):
    """Where each process shows its metrics to Prometheus."""

    port: Annotated[int, Field(ge=1, le=65_000)] | None
    """TCP port of the endpoint; null: there is none. `callboard up` and supervisors of agents give
    the ports after it to the processes that they start."""

    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")]
    """Address it listens on. 127.0.0.1, because it asks nobody for a password."""


class ParallelExecution(Section):
    """What parallel_execution_config.yaml holds."""

    board: BoardSettings
    nats: NatsSettings
    journal: JournalSettings
    lease: LeaseSettings
    router: RouterSettings
    queue: QueueSettings
    retry: RetrySettings
    payload: PayloadSettings
    ledger: LedgerSettings
    audit: AuditSettings
    projection: ProjectionSettings
    cerebral: CerebralSettings
    workflow: WorkflowSettings
    scaling: ScalingSettings
    metrics: MetricsSettings
    log: LogSettings
