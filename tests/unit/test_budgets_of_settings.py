"""The settings' budgets as the journal has them."""

from __future__ import annotations

import pytest

from callboard.budgets import limits
from callboard_broker.wire import Limit, Quota
from callboard_config import SettingsError, auto_concurrency, load_settings


def test_the_defaults_limit_what_runs_and_what_waits():
    found = limits(load_settings())
    most = auto_concurrency()
    assert found == {
        "global": Limit(concurrency=most),
        "tenant": Limit(concurrency=most, weight=1.0, guaranteed=0, waiting=250_000),
    }


def test_every_level_of_the_hierarchy_can_be_set():
    budgets = {
        "global_concurrency": 40,
        "global_units": {"usd": {"limit": 100}},
        "tenant_concurrency": 20,
        "tenant_rate": 5.0,
        "tenants": {"acme": {"weight": 2.0, "capabilities": {"review.python": {"concurrency": 2}}}},
        "capabilities": {"review.python": {"rate": 3.0, "burst": 9.0}},
        "keys": {"provider:openai": {"units": {"tokens": {"limit": 90_000, "per": 60}}}},
    }
    assert limits(load_settings(overrides={"budgets": budgets})) == {
        "global": Limit(concurrency=40, units={"usd": Quota(100)}),
        "tenant": Limit(concurrency=20, rate=5, weight=1.0, guaranteed=0, waiting=250_000),
        "tenant/acme": Limit(weight=2.0),
        "tenant/acme/review.python": Limit(concurrency=2),
        "capability/review.python": Limit(rate=3, burst=9),
        "key/provider:openai": Limit(units={"tokens": Quota(90_000, 60)}),
    }


@pytest.mark.parametrize(
    ("budgets", "key"),
    [
        ({"keys": {"x": {}}}, "budgets.keys.x.concurrency"),
        ({"keys": {"x": {"burst": 3.0}}}, "budgets.keys.x.burst"),
        ({"global_burst": 3.0}, "budgets.global_burst"),
        ({"capabilities": {"Review": {"concurrency": 1}}}, "budgets.capabilities.Review"),
        ({"keys": {"a b": {"concurrency": 1}}}, "budgets.keys.a b"),
        ({"keys": {"x": {"units": {"tokens": {"per": 3.0}}}}}, "budgets.keys.x.units.tokens.limit"),
    ],
)
def test_what_limits_nothing_or_cannot_be_is_refused_by_name(budgets: dict[str, object], key: str):
    with pytest.raises(SettingsError) as refused:
        load_settings(overrides={"budgets": budgets})
    assert refused.value.key.startswith(key)
