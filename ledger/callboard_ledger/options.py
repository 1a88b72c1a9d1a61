"""What a ledger is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput
from callboard_broker.log_lines import LogBounds
from callboard_broker.subjects import Subjects
from callboard_ledger.audit_upkeep import CheckpointOptions

__all__ = ["LedgerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions:
    """What a ledger is started with. Raises `BadInput`."""

    url: str
    """The NATS server, or several separated by commas."""
    prefix: str = "cb"
    """The board: the first token of its subjects."""
    replicas: int = 1
    """Copies of each stream that it has to create, and the least of one that is there."""
    store: Path
    """A directory of its own: rows (`ledger.db`), key and checkpoints of the audit log, a lock."""
    flush_seconds: float = 0.05
    """How long an event may wait to be saved and audited."""
    batch: int = 500
    """How many events may wait to be saved and audited."""
    metrics: Endpoint | None = None
    """Where its metrics are shown; None: nowhere."""
    key: Path | None = None
    """The private key of the audit log; None: `audit.key` in `store`, made at the first start."""
    checkpoints: Path | None = None
    """The file that checkpoints are appended to; None: `checkpoints` in `store`."""
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    """When they are signed, and where else they go."""
    archive: Path | None = None
    """Where events are archived before they are purged; None: `archive` in `store`."""
    archiving: bool = True
    """Whether they are; if not, what is purged is gone."""
    log_bounds: LogBounds = field(default_factory=LogBounds)
    """How much of what handlers log is kept."""
    rebuild: bool = False
    """Whether it forgets its rows first, and folds the journal from its first event again."""

    def __post_init__(self) -> None:
        Subjects(self.prefix)
        if not 0.001 <= self.flush_seconds <= 60:
            raise BadInput("flush_seconds", "must be 0.001 to 60 seconds")
        if not 1 <= self.batch <= 100_000:
            raise BadInput("batch", "must be 1 to 100,000 events")
