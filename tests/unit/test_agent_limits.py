"""The limits that an agent declares: refused by name at import, and given to its children."""

from __future__ import annotations

from typing import Any

import pytest

from callboard_agents import HostOptions, Limits, agent, command_agent
from callboard_agents.cell_plans import cell_plans
from callboard_agents.child_limits import ChildLimits
from callboard_agents.policy import Policy
from callboard_broker.errors import BadInput


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"cpu_seconds": 0}, "limits.cpu_seconds"),
        ({"cpu_seconds": float("nan")}, "limits.cpu_seconds"),
        ({"disk_mb": True}, "limits.disk_mb"),
        ({"output_mb": float("inf")}, "limits.output_mb"),
        ({"files": 8}, "limits.files"),
        ({"processes": 1.5}, "limits.processes"),
        ({"processes": 0}, "limits.processes"),
        ({"read": "/srv"}, "limits.read"),
        ({"read": ["srv"]}, "limits.read"),
        ({"read": ["/a\0b"]}, "limits.read"),
        ({"network": "yes"}, "limits.network"),
        ({"tasks_per_child": 0}, "limits.tasks_per_child"),
        ({"tasks_per_child": 2.0}, "limits.tasks_per_child"),
        ({"tasks_per_child": 2, "processes": 2}, "limits.tasks_per_child"),
    ],
)
def test_a_wrong_limit_is_refused_by_its_name(given: dict[str, Any], field: str):
    with pytest.raises(BadInput) as found:
        Limits(**given)
    assert found.value.field == field


def test_an_agent_takes_limits_and_nothing_like_them():
    with pytest.raises(BadInput, match="is no Limits"):
        agent("work", limits={"processes": 4})(lambda payload: payload)  # type: ignore[arg-type]


def test_what_an_agent_declares_comes_before_the_settings():
    said = Limits(cpu_seconds=3, disk_mb=4, output_mb=5, files=60, processes=7, read=["/srv"])

    @agent("work", isolation="process", memory_mb=50, limits=said)
    def work() -> None: ...

    @agent("other", isolation="process", limits=Limits(network=False))
    def other() -> None: ...

    limits = ChildLimits(cpu_seconds=30, files=100)
    policy = Policy(read=("/opt",), network=True)
    one, two = cell_plans([work, other], HostOptions(url="nats://x", limits=limits, policy=policy))
    grant = one.grant
    assert (grant.memory_mb, grant.cpu_seconds, grant.disk_mb) == (50, 3, 4)
    assert (grant.output_mb, grant.files, grant.processes) == (5, 60, 7)
    assert one.read == ("/opt", "/srv")
    assert one.network
    assert (two.grant.cpu_seconds, two.grant.files, two.network) == (30, 100, False)


def test_a_command_has_one_process_more_for_the_one_that_starts_it():
    limits = ChildLimits(command_processes=10)
    plain = command_agent("a", ["true"])
    own = command_agent("b", ["true"], limits=Limits(processes=1))
    options = HostOptions(url="nats://x", limits=limits)
    assert [plan.grant.processes for plan in cell_plans([plain, own], options)] == [11, 2]


def test_a_child_runs_several_tasks_only_where_it_can_start_no_process():
    limits = ChildLimits(tasks_per_child=10)
    several = Limits(processes=4)
    agents = [
        agent("a", isolation="process")(_nothing),
        agent("b", isolation="process", limits=Limits(tasks_per_child=3))(_nothing),
        agent("c", isolation="process", limits=several)(_nothing),
        command_agent("d", ["true"]),
    ]
    plans = cell_plans(agents, HostOptions(url="nats://x", limits=limits))
    assert [plan.tasks_per_child for plan in plans] == [10, 3, 1, 1]
    assert cell_plans(agents[:1], HostOptions(url="nats://x"))[0].tasks_per_child == 1


def test_settings_that_allow_processes_and_an_agent_that_keeps_its_child_disagree_aloud():
    kept = agent("a", isolation="process", limits=Limits(tasks_per_child=3))(_nothing)
    own = Limits(tasks_per_child=3, processes=1)
    alone = agent("b", isolation="process", limits=own)(_nothing)
    options = HostOptions(url="nats://x", limits=ChildLimits(processes=4))
    assert cell_plans([alone], options)[0].tasks_per_child == 3
    with pytest.raises(BadInput, match="declare processes=1 beside it"):
        cell_plans([kept], options)


def test_a_command_is_started_anew_for_each_task():
    with pytest.raises(BadInput, match="started for each attempt anew"):
        command_agent("d", ["true"], limits=Limits(tasks_per_child=2))


def _nothing() -> None: ...
