"""The specification's interface on a whole board: each method does what its name says."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import callboard
from callboard import (
    AgentRequirement,
    AgentRoutingAPI,
    BadInput,
    Board,
    ErrorHandlingConfig,
    ParallelExecutionAPI,
    ParallelExecutionConfig,
    ParallelExecutionEngine,
    ParallelTask,
    ParallelWorkflow,
    ResourceManagementSystem,
    ResourceRequirements,
    ResourcesExhausted,
    TaskRequirements,
    UnknownTask,
    connect,
)
from callboard_config.cpus import usable_cpus
from tests.board import HERE, Processes, started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def board(nats: NatsServer, folder: Path) -> AsyncIterator[tuple[Board, Processes]]:
    """A router, a ledger and the host `h1`."""
    with started_processes(nats, folder) as processes:
        processes.router("router")
        processes.ledger()
        processes.host("h1", "parallel_agents.py")
        await processes.says("h1 is ready", "h1")
        async with connect(nats.url, prefix=nats.prefix, tenant="acme") as opened:
            yield opened, processes


def diamond() -> list[ParallelTask]:
    return [
        ParallelTask(id="plan", capability="list", payload={"root": "src", "count": 2}),
        ParallelTask(
            id="left",
            capability="work",
            payload={"file": {"from": "plan", "path": "files.0"}},
            dependencies=["plan"],
        ),
        ParallelTask(
            id="right",
            capability="work",
            payload={"file": {"from": "plan", "path": "files.1"}},
            dependencies=["plan"],
            requirements=TaskRequirements(capability="work", version=">=2,<3", memory_mb=1),
        ),
        ParallelTask(
            id="join", capability="work", dependencies=["left", "right"], payload={"file": "all"}
        ),
    ]


SPECIFIED = {
    "ParallelExecutionConfig": {
        "max_concurrent_agents": 10,
        "cpu_limit_per_agent": 1.0,
        "memory_limit_per_agent": 1024,
        "timeout_per_agent": 300,
        "auto_scaling_enabled": True,
        "resource_monitoring_enabled": True,
    },
    "AgentResourceAllocation": [
        "agent_id",
        "cpu_cores",
        "memory_mb",
        "timeout_seconds",
        "priority",
        "specialization",
        "current_workload",
    ],
    "ParallelWorkflowState": [
        "workflow_id",
        "parallel_tasks",
        "resource_allocations",
        "execution_status",
        "performance_metrics",
        "error_handling",
    ],
}


def test_the_records_have_exactly_the_specified_fields():
    for name, expected in SPECIFIED.items():
        fields = dataclasses.fields(getattr(callboard, name))
        if isinstance(expected, dict):
            assert {field.name: field.default for field in fields} == expected
        else:
            assert [field.name for field in fields] == expected


@pytest.mark.parametrize(
    ("name", "method", "parameters"),
    [
        (
            "ParallelExecutionAPI",
            "execute_parallel_workflow",
            ["workflow_id", "parallel_tasks", "resource_config"],
        ),
        ("ParallelExecutionAPI", "allocate_agent_resources", ["agent_requirements"]),
        ("ParallelExecutionAPI", "monitor_parallel_execution", ["workflow_id"]),
        ("AgentRoutingAPI", "select_optimal_agents", ["task_requirements"]),
        ("AgentRoutingAPI", "route_parallel_tasks", ["tasks", "available_agents"]),
        ("ParallelExecutionEngine", "execute_parallel_workflow", ["workflow"]),
        ("ResourceManagementSystem", "allocate_resources", ["requirements"]),
    ],
)
def test_the_methods_take_exactly_the_specified_parameters(
    name: str, method: str, parameters: list[str]
):
    signature = inspect.signature(getattr(getattr(callboard, name), method))
    needed = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.name != "self"
    ]
    assert needed == parameters


async def test_a_workflow_runs_by_its_dependencies_and_is_followed_to_its_end(
    nats: NatsServer, tmp_path: Path
):
    async with board(nats, tmp_path) as (opened, _):
        api = ParallelExecutionAPI(opened)
        result = await api.execute_parallel_workflow("d-1", diamond(), ParallelExecutionConfig())
        assert result.status == "succeeded"
        assert result.results["left"]["done"] == "src/0"
        assert result.results["right"]["done"] == "src/1"
        assert result.state.execution_status == "succeeded"
        assert result.state.resource_allocations["right"].agent_id == "h1"
        assert result.state.resource_allocations["right"].memory_mb == 1
        assert result.metrics.used == {"tokens": 30.0}
        assert result.metrics.succeeded == result.metrics.total == 4
        # again: the same run, and not another one
        again = await api.execute_parallel_workflow("d-1", diamond(), ParallelExecutionConfig())
        assert again.id == result.id
        assert again.results == result.results
        # from another object, by the name and by the board's id
        other = ParallelExecutionAPI(opened)
        assert (await other.monitor_parallel_execution("d-1")).succeeded == 4
        assert (await other.monitor_parallel_execution(result.id)).execution_status == "succeeded"
        with pytest.raises(UnknownTask):
            await other.monitor_parallel_execution("never")

        tasks = [
            ParallelTask(id=f"t{n}", capability="work", payload={"seconds": 0.3}) for n in range(6)
        ]
        config = ParallelExecutionConfig(max_concurrent_agents=2)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(api.execute_parallel_workflow("d-2", tasks, config))
            seen = []
            while not seen:
                try:
                    seen = [one async for one in api.monitor_parallel_execution("d-2")]
                except UnknownTask:
                    await asyncio.sleep(0.01)  # it is being posted
        assert running.result().status == "succeeded"
        assert seen[-1].execution_status == "succeeded"
        assert seen[-1].succeeded == 6
        assert max(one.running for one in seen) <= 2
        assert seen[-1].hosts == 1


async def test_a_failure_is_told_and_keeps_the_results_of_the_others(
    nats: NatsServer, tmp_path: Path
):
    async with board(nats, tmp_path) as (opened, _):
        api = ParallelExecutionAPI(opened)
        tasks = [
            ParallelTask(id="good", capability="work", payload={"file": "a"}),
            ParallelTask(id="bad", capability="work", payload={"fail": "yes"}),
            ParallelTask(id="after", capability="work", dependencies=["bad"], payload={}),
        ]
        config = ParallelExecutionConfig()
        result = await api.execute_parallel_workflow("f-1", tasks, config)
        assert result.status == "failed"
        assert result.results["good"]["done"] == "a"
        assert result.errors["bad"].type == "ValueError"
        assert "after" not in result.results
        handling = ErrorHandlingConfig(max_attempts=2, delay_seconds=0.01, continue_on_failure=True)
        result = await api.execute_parallel_workflow("f-2", tasks, config, error_handling=handling)
        assert "after" in result.results
        assert result.errors["bad"].type == "ValueError"


async def test_agents_are_selected_assigned_and_allocated_within_what_they_have(
    nats: NatsServer, tmp_path: Path
):
    async with board(nats, tmp_path) as (opened, processes):
        processes.host("h2", "parallel_agents.py")
        await processes.says("h2 is ready", "h2")
        routing = AgentRoutingAPI(opened)
        wanted = TaskRequirements(capability="work", version=">=2", avoid=["h1"])
        async with asyncio.timeout(20):
            while not (found := await routing.select_optimal_agents(wanted)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # its first beat is on its way to the router
        assert [one.agent_id for one in found] == ["h2"]
        assert found[0].version == "2.1"
        assert 0 < found[0].score <= 1
        assert await routing.select_optimal_agents(TaskRequirements(capability="nobody")) == []
        with pytest.raises(BadInput, match="version"):
            await routing.select_optimal_agents(TaskRequirements(capability="work", version="x"))

        both = await routing.select_optimal_agents(TaskRequirements(capability="work"))
        assert {one.agent_id for one in both} == {"h1", "h2"}
        tasks = [ParallelTask(id=f"t{n}", capability="work") for n in range(10)]
        assigned = await routing.route_parallel_tasks(tasks, both)
        assert [one.task_id for one in assigned] == [task.id for task in tasks]
        shares = [sum(one.agent_id == name for one in assigned) for name in ("h1", "h2")]
        assert sum(shares) == 10
        assert min(shares) >= 3  # the busier one gets less
        strangers = await routing.route_parallel_tasks(
            [ParallelTask(id="t", capability="list")], [dataclasses.replace(both[0], agent_id="x")]
        )
        assert strangers[0].agent_id is None
        assert "none of the available agents" in strangers[0].reason

        api = ParallelExecutionAPI(opened)
        want = AgentRequirement(capability="work", memory_mb=64)
        held = await api.allocate_agent_resources([want] * 40)
        assert len(held) == 40
        assert {one.agent_id for one in held} == {"h1", "h2"}
        assert held[-1].current_workload == 1.0
        with pytest.raises(ResourcesExhausted, match="slots are held"):
            await api.allocate_agent_resources([want])
        await api.release_agent_resources(held[:1])
        assert len(await api.allocate_agent_resources([want])) == 1
        with pytest.raises(BadInput, match="not held"):
            await api.release_agent_resources(held[:1])
        huge = AgentRequirement(capability="list", memory_mb=1e8)
        with pytest.raises(ResourcesExhausted, match="MiB are free"):
            await api.allocate_agent_resources([huge])
        stay = TaskRequirements(capability="work", stay_with="h2")
        task = ParallelTask(id="one", capability="work", payload={}, requirements=stay)
        result = await api.execute_parallel_workflow("s-1", [task], ParallelExecutionConfig())
        assert result.state.resource_allocations["one"].agent_id == "h2"


async def test_an_engine_runs_agents_of_its_own_for_a_workflow(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(HERE)
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}{os.pathsep}{HERE}")
    with started_processes(nats, tmp_path) as processes:
        processes.router("router")
        processes.ledger()
        await processes.says("now leader", "router")
        engine = ParallelExecutionEngine(
            ParallelExecutionConfig(max_concurrent_agents=10),
            agents=["parallel_agents.py"],
            url=nats.url,
            prefix=nats.prefix,
        )
        tasks = [ParallelTask(id=f"t{n}", capability="work", payload={}) for n in range(10)]
        workflow = ParallelWorkflow(workflow_id="e-1", parallel_tasks=tasks)
        async with engine:
            result = await engine.execute_parallel_workflow(workflow)
            with pytest.raises(BadInput, match="at least one task"):
                await engine.execute_parallel_workflow(
                    ParallelWorkflow(workflow_id="e-2", parallel_tasks=[])
                )
        assert result.status == "succeeded"
        assert len(result.results) == 10
        with pytest.raises(KeyError):
            async with engine:
                raise KeyError("of the caller")


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([], "parallel_tasks"),
        ([ParallelTask(id="a", capability="x", dependencies=["b"])], "a.dependencies"),
        (
            [
                ParallelTask(id="a", capability="x", dependencies=["b"]),
                ParallelTask(id="b", capability="x", dependencies=["a"]),
            ],
            "cycle",
        ),
        ([ParallelTask(id="Not Good", capability="x")], "Not Good"),
        ([ParallelTask(id="a", capability="x", priority=11)], "priority"),
    ],
)
async def test_a_workflow_that_can_never_run_is_refused_by_name(
    nats: NatsServer, tasks: list[ParallelTask], field: str
):
    async with connect(nats.url, prefix=nats.prefix) as opened:
        api = ParallelExecutionAPI(opened)
        with pytest.raises(BadInput, match=field):
            await api.execute_parallel_workflow("bad", tasks, ParallelExecutionConfig())


async def test_resources_of_the_machine_are_never_allocated_twice():
    system, other = ResourceManagementSystem(), ResourceManagementSystem()
    cores = usable_cpus()
    everything = await system.allocate_resources(ResourceRequirements(cpu_cores=cores))
    with pytest.raises(ResourcesExhausted, match="cores"):
        await other.allocate_resources(ResourceRequirements(cpu_cores=0.5))
    wanted = ResourceRequirements(cpu_cores=cores, wait_seconds=30)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(other.allocate_resources(wanted))
        second = group.create_task(system.allocate_resources(wanted))
        await asyncio.sleep(0)  # both stand in the line now
        assert not first.done()
        everything.release()
        everything.release()  # once is enough
        async with await first:
            assert not second.done()
    second.result().release()
    assert system.cpu_cores_free == cores
    with pytest.raises(BadInput, match="more than all"):
        await system.allocate_resources(ResourceRequirements(cpu_cores=cores + 1))
