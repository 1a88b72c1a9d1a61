"""What a poster says of a task is checked where it is said, by the name of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from callboard_broker.commanding import CommandDetails, read_command
from callboard_broker.errors import BadInput
from callboard_broker.options import TaskOptions, read_options
from callboard_broker.wire import Cron, Needs, Post, Retry, Timeouts


def test_records_and_plain_dicts_say_the_same():
    records = TaskOptions(
        retry=Retry(attempts=3, delay=0.5),
        timeouts=Timeouts(queue=60, total=600),
        needs=Needs(labels={"gpu": "a100"}, cpu=2),
        cron=Cron("*/5 * * * *"),
    )
    dicts = TaskOptions(
        retry={"attempts": 3, "delay": 0.5},
        timeouts={"queue": 60, "total": 600},
        needs={"labels": {"gpu": "a100"}, "cpu": 2},
        cron="*/5 * * * *",
    )
    read = read_options(records, Post())
    assert read == read_options(dicts, Post())
    assert read.retry == Retry(attempts=3, delay=0.5)
    assert read.cron == Cron("*/5 * * * *")


def test_options_change_nothing_else_of_the_post():
    post = Post(key="once", nonce="n.1", shard=7, priority=8, timeout=30)
    options = TaskOptions(budgets=("provider:openai",), units={"tokens": 2000}, delay=5, retry=None)
    read = read_options(options, post)
    assert (read.key, read.nonce, read.shard, read.priority) == ("once", "n.1", 7, 8)
    assert (read.timeout, read.delay, read.retry) == (30, 5, None)
    assert (read.budgets, read.units) == (["provider:openai"], {"tokens": 2000})


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"retry": {"attempts": 0}}, "retry.attempts"),
        ({"retry": Retry(attempts=-1)}, "retry.attempts"),
        ({"retry": {"tries": 3}}, "retry.tries"),
        ({"retry": 3}, "retry"),
        ({"timeouts": {"total": -1}}, "timeouts.total"),
        ({"needs": {"labels": {"gpu": 1}}}, "needs.labels[...]"),
        ({"budgets": "provider:openai"}, "budgets"),
        ({"budgets": ["Not A Name"]}, "budgets[0]"),
        ({"units": {"tokens": "many"}}, "units[...]"),
        ({"delay": float("nan")}, "options.delay"),
        ({"delay": -1}, "delay"),
        ({"cron": {"zone": "UTC"}}, "cron.expression"),
        ({"cron": "every day"}, "cron.expression"),
        ({"cron": "0 0 * 8 1#6"}, "cron.expression"),
        ({"cron": {"expression": "0 6 * * *", "zone": "Mars/Base"}}, "cron.zone"),
        ({"retires": 3}, "retires"),
        ({"payload": 3}, "payload"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_with_an_option_is_named(options: dict[str, Any], field: str):
    with pytest.raises(BadInput) as refused:
        read_options(TaskOptions(**options), Post())  # type: ignore[typeddict-item]  # on purpose
    assert refused.value.field == field


@pytest.mark.parametrize("needs", [{"version": "banana"}, Needs(version="banana")])
def test_a_wrong_range_of_versions_is_answered_with_a_right_one(needs: Any):
    with pytest.raises(BadInput, match=r"'banana' is no range of versions, such as"):
        read_options(TaskOptions(needs=needs), Post())
    assert read_options(TaskOptions(needs={"version": ">=1.4, <2"}), Post()).needs is not None


def test_a_command_is_read_as_the_router_reads_it():
    command = read_command("resume", "17", CommandDetails(source="build", payload={"a": 1}))
    assert (command.id, command.source, bytes(command.payload)) == ("17", "build", b'{"a":1}')


@pytest.mark.parametrize(
    ("verb", "task", "details", "field"),
    [
        ("delete", "17", {}, "verb"),
        ("cancel", "seventeen", {}, "id"),
        ("cancel", "0", {}, "id"),
        ("cancel", 17, {}, "id"),
        ("signal", "17", {"name": "Not a name"}, "name"),
        ("resume", "17", {"source": "../.."}, "from"),
        ("cancel", "17", {"reason": "x" * 2000}, "reason"),
        ("signal", "17", {"payload": float("inf")}, "payload"),
        ("approve", "17", {"approved": "yes"}, "approved"),
    ],
)
def test_what_is_wrong_with_a_command_is_named(
    verb: str, task: Any, details: dict[str, Any], field: str
):
    with pytest.raises(BadInput) as refused:
        read_command(verb, task, CommandDetails(**details))  # type: ignore[typeddict-item]  # on purpose
    assert refused.value.field == field
