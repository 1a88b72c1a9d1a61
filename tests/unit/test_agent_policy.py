"""How far a tenant's work is kept apart: from settings through a command line to an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from callboard_agents import HostOptions
from callboard_agents.__main__ import _KINDS
from callboard_agents.child_limits import ChildLimits
from callboard_agents.failures import failure_of
from callboard_agents.policy import Demand, IsolationMissing, Policy
from callboard_broker.errors import BadInput
from callboard_config import Settings, load_settings


def settings(**isolation: object) -> Settings:
    return load_settings(overrides={"isolation": isolation})


def test_by_default_agents_decide_for_themselves():
    policy = Policy.of(settings().isolation)
    assert policy.demand("acme") == Demand()
    assert not policy.demands_children
    assert policy.required == frozenset()


def test_a_tenant_that_requires_a_layer_gets_processes():
    policy = Policy.of(settings(tenants={"acme": {"require": ["landlock"]}}).isolation)
    assert policy.demand("acme") == Demand(process=True, require=frozenset({"landlock"}))
    assert policy.demand("other") == Demand()
    assert policy.demands_children


def test_what_all_require_holds_for_a_tenant_that_would_rather_have_less():
    given = settings(require=["seccomp"], tenants={"acme": {"isolation": "inline"}})
    policy = Policy.of(given.isolation)
    assert policy.demand("acme") == Demand(process=True, require=frozenset({"seccomp"}))


def test_a_tenant_may_be_let_off_what_is_only_the_default():
    given = settings(least="process", tenants={"acme": {"isolation": "inline"}})
    policy = Policy.of(given.isolation)
    assert policy.demand("other").process
    assert not policy.demand("acme").process


def test_a_missing_layer_is_named_with_the_reason_and_may_be_there_on_another_host():
    demand = Demand(process=True, require=frozenset({"landlock", "seccomp"}))
    missing = demand.missing({"seccomp"}, {"landlock": "the kernel is older than 5.13"})
    assert missing == {"landlock": "the kernel is older than 5.13"}
    failure = failure_of(IsolationMissing(missing))
    assert failure.type == "IsolationMissing"
    assert "landlock: the kernel is older than 5.13" in failure.message
    assert not failure.final


def test_the_defaults_of_limits_are_those_of_the_settings():
    assert ChildLimits.of(settings().agents) == ChildLimits()


@pytest.mark.parametrize("field", ["memory_mb", "cpu", "slots", "files", "spares"])
def test_a_limit_that_allows_nothing_is_refused_by_its_name(field: str):
    with pytest.raises(BadInput, match=field):
        ChildLimits(**{field: -1})


def test_limits_and_policy_reach_a_process_by_its_command_line():
    policy = Policy(
        every=Demand(process=True),
        tenants={"acme": Demand(process=True, require=frozenset({"uid"}))},
        read=("/usr", "/etc/ssl"),
    )
    limits = ChildLimits(memory_mb=64.5, cpu=0.5, spares=0)
    options = HostOptions(url="nats://secret@host", limits=limits, policy=policy)
    flags = dict(flag.split("=", 1) for flag in options.arguments())
    assert _KINDS["Policy"](flags["--policy"]) == policy
    assert _KINDS["ChildLimits"](flags["--limits"]) == limits
    assert flags["--beat-seconds"] == "1.0"
    assert not any("secret" in flag for flag in replace(options, pool="acme").arguments())
