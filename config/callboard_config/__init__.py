"""Settings: what holds, and where each value came from.

Command line > environment (`CALLBOARD_LEASE__LEASE_SECONDS=5`) > files (`./config/`) > the YAML
files in this package, the only place where a default stands.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard_config.cerebral import CerebralSettings
    from callboard_config.cpus import auto_concurrency, usable_cpus
    from callboard_config.errors import SettingsError
    from callboard_config.isolation import IsolationSettings, TenantIsolation
    from callboard_config.loading import load_settings
    from callboard_config.log_settings import LogSettings
    from callboard_config.nats_url import check_nats_url, mask_nats_url
    from callboard_config.parallel_execution import (
        BoardSettings,
        EmbeddedSettings,
        JournalSettings,
        LeaseSettings,
        LedgerSettings,
        NatsSettings,
        PayloadSettings,
        QueueSettings,
        RetrySettings,
        RouterSettings,
        WorkflowSettings,
    )
    from callboard_config.projection import ProjectionSettings
    from callboard_config.reserved import RESERVED_TENANTS
    from callboard_config.resource_limits import (
        AgentSettings,
        BudgetLimit,
        BudgetSettings,
        TenantBudget,
        UnitQuota,
    )
    from callboard_config.settings import Setting, Settings, describe

__all__ = [
    "RESERVED_TENANTS",
    "AgentSettings",
    "BoardSettings",
    "BudgetLimit",
    "BudgetSettings",
    "CerebralSettings",
    "EmbeddedSettings",
    "IsolationSettings",
    "JournalSettings",
    "LeaseSettings",
    "LedgerSettings",
    "LogSettings",
    "NatsSettings",
    "PayloadSettings",
    "ProjectionSettings",
    "QueueSettings",
    "RetrySettings",
    "RouterSettings",
    "Setting",
    "Settings",
    "SettingsError",
    "TenantBudget",
    "TenantIsolation",
    "UnitQuota",
    "WorkflowSettings",
    "auto_concurrency",
    "check_nats_url",
    "describe",
    "load_settings",
    "mask_nats_url",
    "usable_cpus",
]

_PLACES = MappingProxyType(
    {
        "AgentSettings": "callboard_config.resource_limits",
        "BoardSettings": "callboard_config.parallel_execution",
        "BudgetLimit": "callboard_config.resource_limits",
        "BudgetSettings": "callboard_config.resource_limits",
        "CerebralSettings": "callboard_config.cerebral",
        "EmbeddedSettings": "callboard_config.parallel_execution",
        "IsolationSettings": "callboard_config.isolation",
        "JournalSettings": "callboard_config.parallel_execution",
        "LeaseSettings": "callboard_config.parallel_execution",
        "LedgerSettings": "callboard_config.parallel_execution",
        "LogSettings": "callboard_config.log_settings",
        "NatsSettings": "callboard_config.parallel_execution",
        "PayloadSettings": "callboard_config.parallel_execution",
        "ProjectionSettings": "callboard_config.projection",
        "QueueSettings": "callboard_config.parallel_execution",
        "RESERVED_TENANTS": "callboard_config.reserved",
        "RetrySettings": "callboard_config.parallel_execution",
        "RouterSettings": "callboard_config.parallel_execution",
        "Setting": "callboard_config.settings",
        "Settings": "callboard_config.settings",
        "SettingsError": "callboard_config.errors",
        "TenantBudget": "callboard_config.resource_limits",
        "TenantIsolation": "callboard_config.isolation",
        "UnitQuota": "callboard_config.resource_limits",
        "WorkflowSettings": "callboard_config.parallel_execution",
        "auto_concurrency": "callboard_config.cpus",
        "check_nats_url": "callboard_config.nats_url",
        "describe": "callboard_config.settings",
        "load_settings": "callboard_config.loading",
        "mask_nats_url": "callboard_config.nats_url",
        "usable_cpus": "callboard_config.cpus",
    }
)
"""Where a name lives. It is loaded when it is first used: most processes need little of it."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
