"""Tasks with dependencies become a workflow of the board: one step each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from callboard.parallel.records import ErrorHandlingConfig, ParallelExecutionConfig, ParallelTask
from callboard_broker.errors import BadInput
from callboard_broker.selections import Selection
from callboard_broker.workflow import StepOptions, Workflow

__all__ = ["workflow_of"]


def workflow_of(
    workflow_id: str,
    tasks: Sequence[ParallelTask],
    config: ParallelExecutionConfig,
    errors: ErrorHandlingConfig,
    inputs: Mapping[str, Any],
) -> Workflow:
    """Return the workflow. Raises `BadInput` that names the task: a cycle, an unknown dependency,
    an id that is there twice."""
    if not tasks:
        raise BadInput("parallel_tasks", "a workflow needs at least one task")
    known = {task.id for task in tasks}
    flow = Workflow(workflow_id, inputs=dict(inputs), at_once=config.max_concurrent_agents)
    for task in tasks:
        for dependency in task.dependencies:
            if dependency not in known:
                raise BadInput(f"{task.id}.dependencies", f"there is no task {dependency!r}")
        flow.step(
            task.id,
            task.capability,
            task.payload,
            after=[Selection(dependency) for dependency in task.dependencies],
            **_options(task, config, errors),
        )
    flow.spec()  # refuses here what the board would refuse
    return flow


def _options(
    task: ParallelTask, config: ParallelExecutionConfig, errors: ErrorHandlingConfig
) -> StepOptions:
    needs = None
    if task.requirements is not None:
        needs = task.requirements.needs(measured=config.resource_monitoring_enabled)
    options: StepOptions = {
        "priority": task.priority,
        "timeout": task.timeout_seconds or config.timeout_per_agent,
        "retry": task.retry or errors.retry(),
        "needs": needs,
    }
    if errors.continue_on_failure:
        options["join"] = "best_effort"
    return options
