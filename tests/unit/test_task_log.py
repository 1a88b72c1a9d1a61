"""`ctx.log`: whatever a handler hands it, the handler goes on."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any, NoReturn

import msgspec
import pytest

from callboard_agents.context import Context, HostSide
from callboard_agents.log_book import LogBook
from callboard_agents.log_options import LogOptions
from callboard_broker.connection import Connection
from callboard_broker.log_lines import LogLine
from callboard_broker.publisher import Publisher
from callboard_broker.subjects import Subjects


class Broken:
    """An object of a handler that is up to no good."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")

    __repr__ = __str__


class BrokenError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


def book(**options: Any) -> LogBook:
    """Without a server: its lines wait."""
    publisher = Publisher(Connection("nats://127.0.0.1:1", "nobody", {}))
    settings = LogOptions(**options)
    return LogBook(publisher, Subjects(), host="h", options=settings, now_ms=lambda: 1000)


def taken(context: Context) -> list[LogLine]:
    assert context.page is not None
    found = context.page.take(10_000, 1 << 30)
    return [msgspec.json.decode(data, type=LogLine) for _, data in found]


async def test_nothing_that_is_wrong_with_a_line_reaches_the_handler():
    context = Context(task="1", host=HostSide(logs=book()))
    log = context.log
    logging.raiseExceptions = False  # the host's own log complains on stderr, as ever
    try:
        log.info("%d files", "three")
        log.info(Broken())
        log.info("%s", Broken())
        log.info("fields", extra={"a": Broken(), 1: {2}})
        clashing = {"name": "clashes", "message": "too", "args": 1}
        log.info("name", extra=clashing)
        log.info("long %s", "x" * 100_000, extra={"y": "z" * 100_000})
        log.info("\ud800 surrogate \x00")
        log.info("deep", extra={"deep": json.loads("[" * 200 + "]" * 200)})
        try:
            raise BrokenError
        except BrokenError:
            log.exception("broken")
    finally:
        logging.raiseExceptions = True
    found = taken(context)
    assert [line.n for line in found] == list(range(1, 10))
    assert all(isinstance(line.fields, msgspec.Raw) for line in (found[3], found[5], found[7]))
    assert isinstance(msgspec.json.decode(found[7].fields), dict)
    assert found[0].message == "a line that cannot be written: TypeError (str)"
    assert found[5].message.endswith(" more)")
    assert all(len(msgspec.json.encode(line)) < 32 * 1024 for line in found)
    assert "BrokenError" in found[8].error


async def test_lines_of_many_threads_are_numbered_without_a_gap():
    context = Context(task="1", host=HostSide(logs=book(lines=5000, rate=1e6)))
    threads = [
        threading.Thread(target=lambda: [context.log.info("%d", n) for n in range(500)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.n for line in taken(context)] == list(range(1, 4001))


async def test_what_could_not_be_sent_comes_again_in_its_order():
    context = Context(task="1", host=HostSide(logs=book()))
    for number in range(6):
        context.log.info("%d", number)
    page = context.page
    assert page is not None
    first, second = page.take(2, 1 << 20), page.take(2, 1 << 20)
    page.put_back(first)
    page.put_back(second)
    assert [line.message for line in taken(context)] == ["0", "1", "2", "3", "4", "5"]


def test_a_context_made_by_hand_logs_as_any_logger(caplog: pytest.LogCaptureFixture):
    context = Context(task="17.a.0")
    assert (context.workflow, len(context.trace)) == ("17", 32)
    with caplog.at_level(logging.INFO, logger="callboard.agent"):
        context.log.info("here", extra={"files": 1})
    record = vars(caplog.records[0])
    assert (record["workflow"], record["trace"]) == ("17", context.trace)
    assert record["fields"] == {"files": 1}
    assert record["funcName"] == "test_a_context_made_by_hand_logs_as_any_logger"
