"""The records of the specification's interface: what is asked for, and what comes back.

They are dataclasses with the names and units that the specification gives. Whatever is wrong in one
is refused when it is made, by an error that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callboard_agents.allocations import AgentResourceAllocation
from callboard_broker.errors import BadInput
from callboard_broker.options import check_priority
from callboard_broker.rule import TaskState
from callboard_broker.subjects import check_capability
from callboard_broker.wire import Failure, Needs, Retry

__all__ = [
    "AgentRequirement",
    "AgentSelection",
    "ErrorHandlingConfig",
    "ParallelExecutionConfig",
    "ParallelExecutionMetrics",
    "ParallelTask",
    "ParallelWorkflow",
    "ParallelWorkflowResult",
    "ParallelWorkflowState",
    "ResourceRequirements",
    "TaskAssignment",
    "TaskRequirements",
]


def _check_amount(field_name: str, value: float, *, least: float = 0.0) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > least:
        raise BadInput(field_name, f"{value!r} is not a number above {least:g}")


@dataclass(slots=True, kw_only=True)
class ParallelExecutionConfig:
    """How one workflow is executed. Raises `BadInput` that names the field.

    max_concurrent_agents: tasks of the workflow that run at the same time; the board's own budgets
    hold besides. cpu_limit_per_agent (cores), memory_limit_per_agent (MiB): what a task in a child
    process of the engine's own agents may use. timeout_per_agent: seconds a handler may run, if its
    task says nothing. auto_scaling_enabled: the engine's own pool of agent processes grows and
    shrinks. resource_monitoring_enabled: a task that needs CPU or memory starts where those are
    measured to be free.
    """

    max_concurrent_agents: int = 10
    cpu_limit_per_agent: float = 1.0
    memory_limit_per_agent: int = 1024
    timeout_per_agent: int = 300
    auto_scaling_enabled: bool = True
    resource_monitoring_enabled: bool = True

    def __post_init__(self) -> None:
        for name in (
            "max_concurrent_agents",
            "cpu_limit_per_agent",
            "memory_limit_per_agent",
            "timeout_per_agent",
        ):
            _check_amount(name, getattr(self, name))
        if not isinstance(self.max_concurrent_agents, int):
            raise BadInput("max_concurrent_agents", f"{self.max_concurrent_agents!r} is not whole")


@dataclass(slots=True, kw_only=True)
class TaskRequirements:
    """What a task needs of an agent: its capability, and what of `Needs` is given.

    cpu_cores: cores; memory_mb: MiB free on its host. version: a range such as `>=1.2,<2`.
    stay_with, avoid: hosts (or agents) by name.
    """

    capability: str
    specialization: Sequence[str] = ()
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_cores: float | None = None
    memory_mb: float | None = None
    stay_with: str | None = None
    avoid: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_capability(self.capability)
        for name in ("cpu_cores", "memory_mb"):
            value = getattr(self, name)
            if value is not None:
                _check_amount(name, value)

    def needs(self, *, measured: bool = True) -> Needs | None:
        """As a task carries them; None if nothing is needed. measured: with CPU and memory."""
        found = Needs(
            specialization=list(self.specialization),
            version=self.version,
            labels=dict(self.labels),
            cpu=self.cpu_cores if measured else None,
            memory_mb=self.memory_mb if measured else None,
            stay_with=self.stay_with,
            avoid=list(self.avoid),
        )
        return None if found == Needs() else found


@dataclass(slots=True, kw_only=True)
class AgentRequirement(TaskRequirements):
    """What is wanted of one agent, to be allocated. timeout_seconds: how long it will be used at
    most. priority: 0 (last) to 9 (first)."""

    timeout_seconds: int = 300
    priority: int = 5

    def __post_init__(self) -> None:
        TaskRequirements.__post_init__(self)
        _check_amount("timeout_seconds", self.timeout_seconds)
        check_priority(self.priority)


@dataclass(slots=True, kw_only=True)
class ResourceRequirements:
    """What is wanted of this machine. wait_seconds: how long to wait until it is free; 0: not."""

    cpu_cores: float = 0.0
    memory_mb: float = 0.0
    wait_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cpu_cores", "memory_mb", "wait_seconds"):
            _check_amount(name, getattr(self, name), least=-1e-9)


@dataclass(slots=True, kw_only=True)
class ErrorHandlingConfig:
    """What follows an error, for tasks that say nothing themselves.

    max_attempts: 1 is no retry; delay_seconds: up to that long before the second one, doubled for
    each further. continue_on_failure: what depends on a failed task runs all the same.
    """

    max_attempts: int = 1
    delay_seconds: float = 1.0
    continue_on_failure: bool = False

    def __post_init__(self) -> None:
        _check_amount("max_attempts", self.max_attempts)

    def retry(self) -> Retry | None:
        """As a task carries it."""
        if self.max_attempts == 1:
            return None
        return Retry(attempts=self.max_attempts, delay=self.delay_seconds)


@dataclass(slots=True, kw_only=True)
class ParallelTask:
    """One task of a workflow. id: lower-case letters, digits, `_`, `-`; unlike any other's.

    dependencies: ids of tasks that must have succeeded before. payload: JSON, in which
    `{"from": "plan", "path": "files"}` stands for (a part of) the result of another task.
    timeout_seconds, requirements, retry: what the workflow's configuration does not say.
    """

    id: str
    capability: str
    payload: Any = None
    dependencies: Sequence[str] = ()
    priority: int = 5
    timeout_seconds: float | None = None
    requirements: TaskRequirements | None = None
    retry: Retry | None = None

    def __post_init__(self) -> None:
        if self.requirements is not None and self.requirements.capability != self.capability:
            raise BadInput(
                "requirements.capability",
                f"{self.requirements.capability!r} is not that of task {self.id} "
                f"({self.capability!r})",
            )


@dataclass(slots=True, kw_only=True)
class ParallelWorkflow:
    """A workflow for `ParallelExecutionEngine`. workflow_id: executing one again gives the run of
    the first time, for 24 hours."""

    workflow_id: str
    parallel_tasks: Sequence[ParallelTask]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    error_handling: ErrorHandlingConfig = field(default_factory=ErrorHandlingConfig)


@dataclass(slots=True, kw_only=True)
class ParallelExecutionMetrics:
    """How far a workflow is. Counts are of tasks, a fan-out's elements each.

    elapsed_seconds: since its post. tasks_per_second: of those that have ended. hosts, cpu_cores,
    memory_mb: the hosts that are heard, what they use of CPU and memory now, with their child
    processes. used: units such as tokens, of all its tasks.
    """

    workflow_id: str
    execution_status: TaskState
    total: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    elapsed_seconds: float
    tasks_per_second: float
    hosts: int
    cpu_cores: float
    memory_mb: float
    used: dict[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more will change."""
        return self.execution_status not in ("waiting", "running")

    def figures(self) -> dict[str, float]:
        """The numbers, by name."""
        return {
            name: float(getattr(self, name))
            for name in (
                "total",
                "waiting",
                "running",
                "succeeded",
                "failed",
                "cancelled",
                "elapsed_seconds",
                "tasks_per_second",
                "hosts",
                "cpu_cores",
                "memory_mb",
            )
        }


@dataclass(slots=True, kw_only=True)
class ParallelWorkflowState:
    """A workflow as it stands. resource_allocations: by task, of those that were given to a host.
    execution_status: `waiting`, `running`, `succeeded`, `failed`, `cancelled` or `expired`."""

    workflow_id: str
    parallel_tasks: list[ParallelTask]
    resource_allocations: dict[str, AgentResourceAllocation]
    execution_status: str
    performance_metrics: dict[str, float]
    error_handling: ErrorHandlingConfig


@dataclass(slots=True, kw_only=True)
class ParallelWorkflowResult:
    """How a workflow ended. id: on the board. results, errors: by task. error: the workflow's."""

    workflow_id: str
    id: str
    status: TaskState
    results: dict[str, Any]
    errors: dict[str, Failure]
    error: Failure | None
    metrics: ParallelExecutionMetrics
    state: ParallelWorkflowState


@dataclass(slots=True, kw_only=True)
class AgentSelection:
    """A host whose agent fits, as the router compares them. agent_id: the host's name.

    score: 0 to 1, of `parts`: fit, specialization, load, latency, success. free_slots: attempts
    that it takes now. short: what it lacks at the moment; None: it can begin at once.
    """

    agent_id: str
    agent: str
    version: str
    capability: str
    specialization: list[str]
    labels: dict[str, str]
    score: float
    parts: dict[str, float]
    slots: int
    free_slots: int
    cpu_cores_free: float
    memory_mb_free: float
    short: str | None = None


@dataclass(slots=True, kw_only=True)
class TaskAssignment:
    """Which agent a task was given. agent_id: None if none of the available ones can take it, and
    reason says why. score: of the chosen one."""

    task_id: str
    agent_id: str | None
    score: float
    reason: str
