"""Writes what the ledger folds into a database of somebody else: Postgres, or Supabase."""

from __future__ import annotations

from callboard_ledger.projection.batch import Beside, Folded, Item
from callboard_ledger.projection.projector import run_projector
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.restoring import Restored, restore
from callboard_ledger.projection.session import ProjectorOptions
from callboard_ledger.projection.target import Target

__all__ = [
    "Beside",
    "Folded",
    "Item",
    "ProjectorOptions",
    "Restored",
    "Target",
    "TargetReader",
    "restore",
    "run_projector",
]
