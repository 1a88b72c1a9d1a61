"""Everything that reads the journal: state, audit, replay."""

from __future__ import annotations

from callboard_ledger.aggregate import Aggregator
from callboard_ledger.check_export import ExportReport, check_export
from callboard_ledger.replay import Replay, Replayed, replay
from callboard_ledger.serve import LedgerOptions, run_ledger
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import Query, Store
from callboard_ledger.trust import Trust
from callboard_ledger.verify import VerifyReport, verify, verify_board
from callboard_ledger.views import (
    CommandView,
    FlowView,
    HistoryView,
    ListView,
    PositionView,
    RowView,
    ScheduleView,
    TaskView,
)

__all__ = [
    "Aggregator",
    "CommandView",
    "ExportReport",
    "FlowView",
    "HistoryView",
    "LedgerOptions",
    "ListView",
    "PositionView",
    "Query",
    "Replay",
    "Replayed",
    "RowView",
    "ScheduleView",
    "SqliteStore",
    "Store",
    "TaskView",
    "Trust",
    "VerifyReport",
    "check_export",
    "replay",
    "run_ledger",
    "verify",
    "verify_board",
]
