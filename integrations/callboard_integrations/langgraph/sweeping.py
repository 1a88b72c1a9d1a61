"""Removes checkpoints, and what only they have named.

A value is removed if no checkpoint that is left names it, and only if it is older than the thread's
newest checkpoint: those of a checkpoint that is being stored come before it.
"""

from __future__ import annotations

from collections import defaultdict

from callboard_broker.record import Record
from callboard_integrations.langgraph.addresses import ThreadAddress, all_checkpoints, word
from callboard_integrations.langgraph.packing import read_reference
from callboard_integrations.langgraph.reading import Reading

__all__ = ["prune", "remove_runs"]


async def prune(reading: Reading, address: ThreadAddress) -> None:
    """Keep of each namespace the latest checkpoint, and those from which its values are built."""
    spaces: dict[str, dict[str, Record]] = defaultdict(dict)
    async for row in reading.newest_first(f"{address.root}.c.>", before=None):
        ns, name = row.subject.split(".")[-2:]
        spaces[ns][name] = row
    for rows in spaces.values():
        kept = await _needed(reading, rows)
        for row in rows.values():
            if row.subject not in kept:
                await _remove(reading, address, row)
    await _sweep(reading, address)


async def remove_runs(reading: Reading, runs: set[str]) -> None:
    """Remove the checkpoints that these runs have stored."""
    touched: dict[str, ThreadAddress] = {}
    async for row in reading.newest_first(all_checkpoints(reading.prefix), before=None):
        if (await reading.metadata(row)).get("run_id") in runs:
            address = reading.address(row)
            touched[address.root] = address
            await _remove(reading, address, row)
    for address in touched.values():
        await _sweep(reading, address)


async def _needed(reading: Reading, rows: dict[str, Record]) -> set[str]:
    """The latest of `rows` (the newest first), and ancestors back to its delta channels' values."""
    row = next(iter(rows.values()))
    needed = {row.subject}
    found = await reading.whole(row)
    lacking = set(found.metadata.get("counters_since_delta_snapshot") or ())
    while lacking := lacking - found.checkpoint["channel_values"].keys():
        parent = rows.get(word((await reading.stored(row)).parent or ""))
        if parent is None or parent.subject in needed:
            break
        row = parent
        needed.add(row.subject)
        found = await reading.whole(row)
    return needed


async def _remove(reading: Reading, address: ThreadAddress, row: Record) -> None:
    ns, name = row.subject.split(".")[-2:]
    await reading.table.purge(row.subject)
    await reading.table.purge(f"{address.writes(ns, name)}.>")


async def _sweep(reading: Reading, address: ThreadAddress) -> None:
    values = await reading.table.keys(f"{address.root}.b.>")
    parts = await reading.table.keys(f"{address.root}.p.>")
    checkpoints = await reading.table.matching(f"{address.root}.c.>")
    newest = max((row.seq for row in checkpoints), default=0)
    live: set[str] = set()
    for row in checkpoints:
        ns = row.subject.split(".")[-2]
        versions = (await reading.named(row))["channel_versions"]
        live |= {address.value(ns, channel, version) for channel, version in versions.items()}
    for subject in values:
        if subject not in live:
            await reading.table.purge(subject, before=newest or None)
    if parts:
        await _sweep_parts(reading, address, parts, newest)


async def _sweep_parts(
    reading: Reading, address: ThreadAddress, parts: list[str], newest: int
) -> None:
    """Remove the large values to which no row refers any more."""
    names: set[str] = set()
    for kind in "cbw":
        for row in await reading.table.matching(f"{address.root}.{kind}.>"):
            ref = read_reference(row.data)
            if ref is not None:
                names.add(ref.name)
    for name in {subject.split(".")[-2] for subject in parts} - names:
        await reading.table.purge(f"{address.root}.p.{name}.*", before=newest or None)
