"""Callboard: agents in parallel, by capability, within budgets, with proof of what happened.

    from callboard import agent, connect

    @agent("review.python")
    def review(source: dict) -> dict: ...

    async with connect() as board:
        handle = await board.submit("review.python", {"path": "app.py"})
        print(await handle.result())

A name is loaded when it is first used: a router does not need what an agent needs.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard.connecting import connect
    from callboard.parallel import (
        AgentRequirement,
        AgentResourceAllocation,
        AgentRoutingAPI,
        AgentSelection,
        ErrorHandlingConfig,
        ParallelExecutionAPI,
        ParallelExecutionConfig,
        ParallelExecutionEngine,
        ParallelExecutionMetrics,
        ParallelTask,
        ParallelWorkflow,
        ParallelWorkflowResult,
        ParallelWorkflowState,
        ResourceAllocation,
        ResourceManagementSystem,
        ResourceRequirements,
        TaskAssignment,
        TaskRequirements,
    )
    from callboard_agents import (
        Agent,
        Call,
        Child,
        Context,
        GiveUp,
        Limits,
        Middleware,
        Next,
        StartFailed,
        agent,
        command_agent,
        lifespan,
    )
    from callboard_broker.client import Board
    from callboard_broker.errors import (
        AuditBroken,
        BadInput,
        BoardUnreachable,
        CallboardError,
        CommandRefused,
        CommandUnanswered,
        JournalMissing,
        Overloaded,
        ResourcesExhausted,
        SchemaMissing,
        ServerFailed,
        StoreLocked,
        StreamDrift,
        StreamMissing,
        TargetAway,
        TargetRefused,
        TaskCancelled,
        TaskError,
        TaskExpired,
        TaskFailed,
        TooLarge,
        UnknownTask,
        WriteRefused,
        WriteUnresolved,
    )
    from callboard_broker.handle import Chunk, Handle, Update
    from callboard_broker.log_lines import LoggedLine
    from callboard_broker.options import TaskOptions
    from callboard_broker.submission import Submission, SubmitMiddleware, SubmitNext
    from callboard_broker.wire import BlobRef, Cron, Needs, Retry, Timeouts
    from callboard_broker.workflow import Condition, Selection, StepOptions, Workflow
    from callboard_config import SettingsError

__all__ = [
    "Agent",
    "AgentRequirement",
    "AgentResourceAllocation",
    "AgentRoutingAPI",
    "AgentSelection",
    "AuditBroken",
    "BadInput",
    "BlobRef",
    "Board",
    "BoardUnreachable",
    "Call",
    "CallboardError",
    "Child",
    "Chunk",
    "CommandRefused",
    "CommandUnanswered",
    "Condition",
    "Context",
    "Cron",
    "ErrorHandlingConfig",
    "GiveUp",
    "Handle",
    "JournalMissing",
    "Limits",
    "LoggedLine",
    "Middleware",
    "Needs",
    "Next",
    "Overloaded",
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
    "ResourcesExhausted",
    "Retry",
    "SchemaMissing",
    "Selection",
    "ServerFailed",
    "SettingsError",
    "StartFailed",
    "StepOptions",
    "StoreLocked",
    "StreamDrift",
    "StreamMissing",
    "Submission",
    "SubmitMiddleware",
    "SubmitNext",
    "TargetAway",
    "TargetRefused",
    "TaskAssignment",
    "TaskCancelled",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TaskOptions",
    "TaskRequirements",
    "Timeouts",
    "TooLarge",
    "UnknownTask",
    "Update",
    "Workflow",
    "WriteRefused",
    "WriteUnresolved",
    "agent",
    "command_agent",
    "connect",
    "lifespan",
]

_ERRORS = "callboard_broker.errors"
_PARALLEL = "callboard.parallel"
_ELSEWHERE = MappingProxyType(
    {
        "Agent": "callboard_agents.agent",
        "AgentRequirement": _PARALLEL,
        "AgentResourceAllocation": _PARALLEL,
        "AgentRoutingAPI": _PARALLEL,
        "AgentSelection": _PARALLEL,
        "BlobRef": "callboard_broker.wire",
        "Board": "callboard_broker.client",
        "Call": "callboard_agents.middleware",
        "Child": "callboard_agents.spawning",
        "Chunk": "callboard_broker.handle",
        "Condition": "callboard_broker.workflow",
        "Context": "callboard_agents.context",
        "Cron": "callboard_broker.wire",
        "ErrorHandlingConfig": _PARALLEL,
        "GiveUp": "callboard_agents.failures",
        "Handle": "callboard_broker.handle",
        "LoggedLine": "callboard_broker.log_lines",
        "Limits": "callboard_agents.limits",
        "Middleware": "callboard_agents.middleware",
        "Needs": "callboard_broker.wire",
        "Next": "callboard_agents.middleware",
        "ParallelExecutionAPI": _PARALLEL,
        "ParallelExecutionConfig": _PARALLEL,
        "ParallelExecutionEngine": _PARALLEL,
        "ParallelExecutionMetrics": _PARALLEL,
        "ParallelTask": _PARALLEL,
        "ParallelWorkflow": _PARALLEL,
        "ParallelWorkflowResult": _PARALLEL,
        "ParallelWorkflowState": _PARALLEL,
        "ResourceAllocation": _PARALLEL,
        "ResourceManagementSystem": _PARALLEL,
        "ResourceRequirements": _PARALLEL,
        "Retry": "callboard_broker.wire",
        "Selection": "callboard_broker.workflow",
        "SettingsError": "callboard_config",
        "StartFailed": "callboard_agents.lifespans",
        "StepOptions": "callboard_broker.workflow",
        "Submission": "callboard_broker.submission",
        "SubmitMiddleware": "callboard_broker.submission",
        "SubmitNext": "callboard_broker.submission",
        "TaskAssignment": _PARALLEL,
        "TaskOptions": "callboard_broker.options",
        "TaskRequirements": _PARALLEL,
        "Timeouts": "callboard_broker.wire",
        "Update": "callboard_broker.handle",
        "Workflow": "callboard_broker.workflow",
        "agent": "callboard_agents.agent",
        "command_agent": "callboard_agents.command_agents",
        "connect": "callboard.connecting",
        "lifespan": "callboard_agents.lifespans",
    }
)
"""Where a name lives that is no error."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_ELSEWHERE.get(name, _ERRORS)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
