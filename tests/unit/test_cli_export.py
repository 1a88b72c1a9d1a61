"""What `callboard audit export` says of what it has written."""

from __future__ import annotations

from callboard.cli.auditing import told_export
from callboard_ledger.exporting import Exported


def test_an_export_says_how_many_events_have_their_content_and_how_many_are_hashes_only():
    assert told_export(Exported(9, 0)) == "9 events"
    assert told_export(Exported(9, 4)).startswith(
        "9 events, 5 with their content and 4 as hashes only"
    )
