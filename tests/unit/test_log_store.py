"""The ledger's store of lines: what it keeps, what it gives, and what it forgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from callboard_broker.log_lines import LogBatch, LoggedLine, LogLine
from callboard_ledger.log_store import LogQuery, LogStore, Stored


def open_store(folder: Path, *, created: str = "then") -> LogStore:
    return LogStore(folder / "logs.db", stream="LOGS", created=created)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    found = open_store(tmp_path)
    yield found
    found.close()


def message(
    seq: int, task: str, *numbers: int, tenant: str = "acme", workflow: str = "", text: str = ""
) -> Stored:
    lines = [
        LogLine(
            number,
            1000 + number,
            "warning" if number % 2 else "info",
            text or f"line {number}",
            fields=msgspec.Raw(b'{"n":%d}' % number),
        )
        for number in numbers
    ]
    root = workflow or task.partition(".")[0]
    return Stored(
        seq=seq, tenant=tenant, batch=LogBatch(task, root, 1, "h", "plan", "1" * 32, lines)
    )


def found(store: LogStore, task: str, *, tenant: str = "acme", **more: int) -> list[LoggedLine]:
    return store.find(LogQuery(tenant=tenant, task=task, **more)).lines


def test_a_line_that_comes_twice_is_kept_once(store: LogStore):
    store.save([message(1, "7", 1, 2)])
    store.save([message(2, "7", 2, 3)])
    assert [line.n for line in found(store, "7")] == [1, 2, 3]
    assert store.position == 2


def test_a_workflow_gives_all_that_hangs_on_it_and_a_step_only_what_is_below_it(store: LogStore):
    store.save(
        [
            message(1, "7.plan.1", 1),
            message(2, "7.plan.10", 1),
            message(3, "70", 1),
            message(4, "9", 1, workflow="7"),
            message(5, "7.plan.1.inner.0", 1),
            message(6, "7", 1, tenant="globex"),
        ]
    )
    assert [line.task for line in found(store, "7")] == [
        "7.plan.1",
        "7.plan.10",
        "9",
        "7.plan.1.inner.0",
    ]
    assert [line.task for line in found(store, "7.plan.1")] == ["7.plan.1", "7.plan.1.inner.0"]
    assert [line.task for line in found(store, "9")] == ["9"]
    assert [line.tenant for line in found(store, "7", tenant="globex")] == ["globex"]
    assert found(store, "70", tenant="globex") == []


def test_the_runs_of_a_schedule_are_found_below_it(store: LogStore):
    store.save([message(1, "7.cron.1", 1, workflow="7.cron.1")])
    store.save([message(2, "9", 1, workflow="7.cron.1")])
    assert [line.task for line in found(store, "7.cron.1")] == ["7.cron.1", "9"]
    assert [line.task for line in found(store, "7")] == ["7.cron.1"]


def test_lines_come_page_by_page_each_once(store: LogStore):
    store.save([message(1, "7", *range(1, 26))])
    seen: list[int] = []
    after, more = 0, True
    while more:
        page = store.find(LogQuery(tenant="acme", task="7", after=after, limit=10))
        seen += [line.n for line in page.lines]
        after, more = page.next, page.more
    assert seen == list(range(1, 26))
    store.save([message(2, "7", 26)])
    assert [line.n for line in found(store, "7", after=after)] == [26]
    assert [line.n for line in found(store, "7", last=3)] == [24, 25, 26]
    assert [line.n for line in found(store, "7", level=30, last=2)] == [23, 25]


def test_an_answer_is_no_longer_than_a_message_may_be(store: LogStore):
    store.save([message(1, "7", *range(1, 301), text="x" * 8000)])
    page = store.find(LogQuery(tenant="acme", task="7"))
    assert page.more
    assert len(msgspec.json.encode(page.lines)) < 900 * 1024
    assert page.lines[0].fields == {"n": 1}


def test_what_the_stream_has_dropped_is_dropped_here(store: LogStore):
    store.save([message(seq, "7", 2 * seq, 2 * seq + 1) for seq in range(1, 6)])
    assert not store.forget(4)
    assert [line.n for line in found(store, "7")] == [8, 9, 10, 11]
    assert store.position == 5


def test_it_goes_on_where_it_was_and_begins_anew_with_another_stream(tmp_path: Path):
    store = open_store(tmp_path)
    store.save([message(3, "7", 1)])
    store.close()
    store = open_store(tmp_path)
    assert (store.position, len(found(store, "7"))) == (3, 1)
    store.close()
    store = open_store(tmp_path, created="later")
    assert (store.position, found(store, "7")) == (0, [])
    store.close()


def test_what_cannot_be_read_is_passed_over_with_the_position(store: LogStore):
    store.save([Stored(seq=9, tenant="", batch=None)])
    assert store.position == 9
