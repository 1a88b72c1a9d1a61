"""Hosts as the ledger knows them: a fold of beats that outlives the stream of beats."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard_broker.beats import Beat, Offer
from callboard_broker.record import Record
from callboard_broker.wire import encode
from callboard_ledger.holding_views import view_hosts
from callboard_ledger.hosts import HostRow, Hosts
from callboard_ledger.questions import AgentsQuestion
from callboard_ledger.sqlite_store import SqliteStore

START_MS = 1_700_000_000_000


def beat(seq: int, host: str = "h1", incarnation: str = "i1", **said: object) -> Record:
    """Stored at `seq` of BEATS, a second after the one before."""
    pool = str(said.pop("pool", "shared"))
    subject = str(said.pop("subject", f"cb.beat.{pool}.{host}"))
    data = encode(Beat(host, incarnation, pool, **said))  # type: ignore[arg-type]
    return Record(seq, (START_MS + seq * 1000) * 1_000_000, subject, b"", data)


def heard(*records: Record) -> Hosts:
    hosts = Hosts("cb")
    hosts.begin("t0", 0)
    for record in records:
        hosts.apply(record)
    return hosts


def test_the_last_beat_of_a_host_counts_and_a_repeated_one_changes_nothing() -> None:
    first, second = beat(1, cpu=0.5), beat(2, cpu=1.5)
    hosts = heard(first, second)
    hosts.saved()
    assert not hosts.apply(first)
    assert not hosts.apply(second)
    row = hosts.rows["shared", "h1"]
    assert (row.beat.cpu, row.seq) == (1.5, 2)
    assert (row.seen_at, row.since) == (START_MS + 2000, START_MS + 1000)
    assert not hosts.unsaved


def test_a_new_incarnation_is_since_its_first_beat_and_the_old_ones_goodbye_is_not_its_own() -> (
    None
):
    hosts = heard(beat(1), beat(2, incarnation="i2"), beat(3, gone=True))
    row = hosts.rows["shared", "h1"]
    assert (row.gone, row.since) == (False, START_MS + 2000)
    hosts.apply(beat(4, incarnation="i2", gone=True))
    assert row.state(START_MS + 4000) == "gone"


def test_a_host_that_is_gone_is_still_known_by_what_it_offered() -> None:
    offers = [Offer("review", 4, 4, version="2.1")]
    hosts = heard(beat(1, offers=offers), beat(2, gone=True))
    assert hosts.rows["shared", "h1"].beat.offers == offers


def test_a_host_that_is_silent_for_longer_than_its_lease_is_told_so() -> None:
    row = heard(beat(1)).rows["shared", "h1"]
    assert row.state(row.seen_at + 20_000) == "here"
    assert row.state(row.seen_at + 20_001) == "silent"


def test_a_beat_in_another_hosts_name_and_one_that_cannot_be_read_are_passed_over() -> None:
    bad = Record(2, 0, "cb.beat.shared.h2", b"", b"no json")
    hosts = heard(beat(1, "h1", subject="cb.beat.acme.h1"), bad)
    assert hosts.rows == {}
    assert (hosts.stray, hosts.position) == (2, 2)


def test_a_stream_that_was_made_anew_is_read_from_its_beginning_and_rows_stay() -> None:
    hosts = heard(beat(7))
    assert hosts.begin("t0", 9) == 8
    assert hosts.begin("t1", 9) == 1
    hosts.apply(beat(1, "h2"))
    assert sorted(host for _, host in hosts.rows) == ["h1", "h2"]


def test_who_was_not_heard_for_a_week_is_forgotten_when_another_one_comes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db", stream="JOURNAL")
    hosts = heard(beat(1))
    store.save_hosts(hosts)
    hosts.saved()
    hosts.apply(beat(8 * 24 * 3600, "h2"))
    store.save_hosts(hosts)
    again = Hosts("cb")
    store.load_hosts(again)
    assert [host for _, host in again.rows] == ["h2"]
    store.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_stored_hosts_equal_an_independent_fold_across_saves_and_restarts(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    names = [f"h{number}" for number in range(6)]
    incarnations = dict.fromkeys(names, 0)
    records = []
    for seq in range(1, 400):
        host = rng.choice(names)
        incarnations[host] += rng.random() < 0.1
        number = incarnations[host] - (rng.random() < 0.1)
        gone = rng.random() < 0.1
        records.append(beat(seq, host, f"i{number}", gone=gone, cpu=0.0 if gone else rng.random()))
    store, hosts = SqliteStore(tmp_path / "ledger.db", stream="JOURNAL"), heard()
    for number, record in enumerate(records):
        hosts.apply(record)
        if rng.random() < 0.3:
            store.save_hosts(hosts)
            hosts.saved()
        if rng.random() < 0.05:  # killed: what was not saved is read again, from an earlier place
            hosts = Hosts("cb")
            store.load_hosts(hosts)
            for again in records[max(0, hosts.begin("t0", 10**6) - 5) : number + 1]:
                hosts.apply(again)
    store.save_hosts(hosts)
    kept = Hosts("cb")
    store.load_hosts(kept)
    assert {host: row for (_, host), row in kept.rows.items()} == hosts_of(records)
    assert (kept.created, kept.position) == ("t0", 399)
    store.close()


def hosts_of(records: list[Record]) -> dict[str, HostRow]:
    """Of each host its last living beat, and whether that very incarnation has said goodbye."""
    found: dict[str, HostRow] = {}
    for name in {record.subject.rsplit(".", 1)[1] for record in records}:
        mine = [(r, msgspec.json.decode(r.data)) for r in records if r.subject.endswith(f".{name}")]
        row: dict[str, Any] = {}
        for record, said in mine:
            at = record.at_ns // 1_000_000
            if not row:
                row = {"since": at, "gone": said.get("gone", False), "said": said}
            elif said.get("gone"):
                if row["gone"] or said["incarnation"] != row["said"]["incarnation"]:
                    continue
                row["gone"] = True
            else:
                same = said["incarnation"] == row["said"]["incarnation"]
                row |= {"gone": False, "said": said, "since": row["since"] if same else at}
            row |= {"seq": record.seq, "seen_at": at}
        said = msgspec.convert(row.pop("said"), Beat)
        found[name] = HostRow(pool="shared", host=name, beat=said, **row)
    return found


def test_a_tenant_is_told_of_its_own_pools_hosts_only_page_by_page() -> None:
    hosts = heard(beat(1, "a"), beat(2, "b", pool="acme"), beat(3, "c", pool="acme"))
    hosts.apply(beat(4, "r", pool="router"))
    store, now_ms = SqliteStore(None, stream="JOURNAL"), START_MS + 5000

    def told(tenant: str, **asked: object) -> list[str]:
        question = AgentsQuestion(**asked)  # type: ignore[arg-type]
        return [item.host for item in view_hosts(hosts, store, question, tenant, now_ms).items]

    assert told("acme") == ["b", "c"]
    assert told("globex") == []
    assert told("all") == ["b", "c", "a"]
    assert told("all", limit=1, after="acme/b") == ["c"]
    assert told("all", state="silent") == []
    store.close()
