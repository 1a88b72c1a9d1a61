"""The specification's interface, as a thin layer on the board: the same router, budgets, journal.

Names and parameters are the specification's; what it only names, these modules define.
"""

from __future__ import annotations

from callboard.parallel.engine import ParallelExecutionEngine
from callboard.parallel.execution import ParallelExecutionAPI
from callboard.parallel.monitoring import Monitoring
from callboard.parallel.records import (
    AgentRequirement,
    AgentSelection,
    ErrorHandlingConfig,
    ParallelExecutionConfig,
    ParallelExecutionMetrics,
    ParallelTask,
    ParallelWorkflow,
    ParallelWorkflowResult,
    ParallelWorkflowState,
    ResourceRequirements,
    TaskAssignment,
    TaskRequirements,
)
from callboard.parallel.resources import ResourceAllocation, ResourceManagementSystem
from callboard.parallel.routing import AgentRoutingAPI
from callboard_agents.allocations import AgentResourceAllocation

__all__ = [
    "AgentRequirement",
    "AgentResourceAllocation",
    "AgentRoutingAPI",
    "AgentSelection",
    "ErrorHandlingConfig",
    "Monitoring",
    "ParallelExecutionAPI",
    "ParallelExecutionConfig",
    "ParallelExecutionEngine",
    "ParallelExecutionMetrics",
    "ParallelTask",
    "ParallelWorkflow",
    "ParallelWorkflowResult",
    "ParallelWorkflowState",
    "ResourceAllocation",
    "ResourceManagementSystem",
    "ResourceRequirements",
    "TaskAssignment",
    "TaskRequirements",
]
