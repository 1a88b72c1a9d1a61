"""The options of the command line become what the client and the router call them."""

from __future__ import annotations

import pytest

from callboard.cli.budget import check_budget, read_limit
from callboard.cli.terms import Terms, read_terms
from callboard_broker.errors import BadInput
from callboard_broker.options import read_options
from callboard_broker.wire import Limit, Post, Quota


def test_terms_are_those_of_submit():
    options = read_terms(
        Terms(
            retry="3",
            delay=5.0,
            queue=60.0,
            total=600.0,
            needs=[
                "label=gpu:a100",
                "label=zone:eu:1",
                "cpu=2",
                "memory=512",
                "version=>=1.2,<2",
                "specialization=java",
                "specialization=sql",
                "avoid=host-1",
                "stay-with=host-2",
            ],
            budgets=["provider:openai"],
            units=["tokens=2000", "cost=0.5"],
        )
    )
    post = read_options(options, Post())
    assert post.retry is not None
    assert post.timeouts is not None
    assert post.needs is not None
    assert (post.retry.attempts, post.delay, post.timeouts.total) == (3, 5, 600)
    assert post.needs.labels == {"gpu": "a100", "zone": "eu:1"}
    assert (post.needs.cpu, post.needs.memory_mb) == (2, 512)
    assert (post.needs.version, post.needs.stay_with) == (">=1.2,<2", "host-2")
    assert (post.needs.specialization, post.needs.avoid) == (["java", "sql"], ["host-1"])
    assert (post.budgets, post.units) == (["provider:openai"], {"tokens": 2000, "cost": 0.5})


def test_nothing_said_is_nothing_posted():
    assert read_terms(Terms()) == {}


def test_retry_may_be_an_object_and_cron_has_a_zone():
    post = read_options(
        read_terms(
            Terms(retry='{"attempts": 5, "elsewhere": true}', cron="0 6 * * *", zone="Asia/Tokyo")
        ),
        Post(),
    )
    assert post.retry is not None
    assert (post.retry.attempts, post.retry.elsewhere) == (5, True)
    assert post.cron is not None
    assert (post.cron.expression, post.cron.zone) == ("0 6 * * *", "Asia/Tokyo")


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (Terms(retry="often"), "retry"),
        (Terms(retry="true"), "retry"),
        (Terms(needs=["gpu"]), "need"),
        (Terms(needs=["gpu=a100"]), "need"),
        (Terms(needs=["label=gpu"]), "need"),
        (Terms(needs=["cpu=two"]), "need cpu"),
        (Terms(units=["tokens"]), "unit"),
        (Terms(units=["tokens=nan"]), "unit tokens"),
        (Terms(zone="Asia/Tokyo"), "zone"),
        (Terms(overlap=True), "overlap"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_named(terms: Terms, field: str):
    with pytest.raises(BadInput) as refused:
        read_terms(terms)
    assert refused.value.field == field


def test_a_budget_is_changed_field_by_field():
    before = Limit(concurrency=5, rate=1.0, units={"cost": Quota(9)})
    after = read_limit(
        before,
        ["rate=120/m", "burst=4", "concurrency=none", "units.tokens=1000/60", "waiting=100"],
    )
    assert after == Limit(
        rate=2.0, burst=4, waiting=100, units={"cost": Quota(9), "tokens": Quota(1000, 60)}
    )
    assert read_limit(Limit(), ["units.tokens=90000/1m"]).units == {"tokens": Quota(90_000, 60)}
    assert read_limit(Limit(), ["rate=2/s"]).rate == 2
    assert read_limit(before, ["units.cost=none"]).units == {}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        (["concurrency"], "fields"),
        (["concurrency=-1"], "concurrency"),
        (["concurrency=1.5"], "concurrency"),
        (["concurrency=many"], "concurrency"),
        (["rate=2/fortnight"], "rate"),
        (["rate=0"], "rate"),
        (["weight=inf"], "weight"),
        (["speed=2"], "speed"),
        (["units.tokens=5/soon"], "units.tokens"),
        (["units.TOKENS=5"], "units"),
    ],
)
def test_what_is_wrong_with_a_budget_is_named(fields: list[str], field: str):
    with pytest.raises(BadInput) as refused:
        read_limit(Limit(), fields)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "key",
    [
        "global",
        "tenant",
        "tenant/acme",
        "capability/review.python",
        "tenant/acme/review.python",
        "key/provider:openai",
    ],
)
def test_every_kind_of_budget_has_its_key(key: str):
    assert check_budget(key) == key


@pytest.mark.parametrize(
    "key", ["", "acme", "tenant/", "tenant/all", "capability/A", "tenant/acme/", "key/", "flow/7"]
)
def test_what_is_no_budget_is_refused(key: str):
    with pytest.raises(BadInput, match=r"^key: "):
        check_budget(key)
