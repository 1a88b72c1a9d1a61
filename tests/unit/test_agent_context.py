"""What a handler hears and says through its context."""

from __future__ import annotations

import logging
import math

import pytest

from callboard_agents import Context
from callboard_broker.errors import BadInput, TooLarge


def test_the_idempotency_key_is_the_same_for_every_attempt():
    first = Context(task="17", attempt=1, tenant="acme")
    second = Context(task="17", attempt=2, tenant="acme")
    assert first.idempotency_key == second.idempotency_key == "acme/17"


async def test_progress_is_told_at_once_and_may_be_awaited():
    told: list[bytes] = []
    context = Context(task="1", tell=told.append)
    context.progress({"done": 3})
    await context.progress("half")
    assert told == [b'{"done":3}', b'"half"']


def test_a_progress_that_cannot_be_told_names_what_is_wrong():
    context = Context(task="1")
    with pytest.raises(BadInput, match=r"progress\.done: nan"):
        context.progress({"done": math.nan})
    with pytest.raises(BadInput, match="object"):
        context.progress(object())
    with pytest.raises(TooLarge):
        context.progress("x" * 70_000)


def test_a_cancelled_handler_is_no_longer_heard():
    told: list[bytes] = []
    context = Context(task="1", tell=told.append)
    assert not context.cancelled
    context.cancel()
    assert context.cancelled
    context.progress(1)
    assert told == []


def test_log_records_carry_the_attempt(caplog: pytest.LogCaptureFixture):
    context = Context(task="17", attempt=2, tenant="acme", capability="review")
    with caplog.at_level(logging.INFO, logger="callboard.agent"):
        context.log.info("seen %d files", 3)
    record = caplog.records[0]
    assert record.getMessage() == "seen 3 files"
    assert vars(record)["task"] == "17"
    assert vars(record)["attempt"] == 2
