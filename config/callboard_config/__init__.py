"""Settings: what holds, and where each value came from.

Command line > environment (`CALLBOARD_LEASE__LEASE_SECONDS=5`) > files (`./config/`) > the YAML
files in this package, the only place where a default stands.
"""

from callboard_config.cpus import auto_concurrency, usable_cpus
from callboard_config.errors import SettingsError
from callboard_config.isolation import IsolationSettings, TenantIsolation
from callboard_config.loading import load_settings
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
from callboard_config.resource_limits import (
    AgentSettings,
    BudgetLimit,
    BudgetSettings,
    TenantBudget,
    UnitQuota,
)
from callboard_config.section import RESERVED_TENANTS
from callboard_config.settings import Setting, Settings, describe

__all__ = [
    "RESERVED_TENANTS",
    "AgentSettings",
    "BoardSettings",
    "BudgetLimit",
    "BudgetSettings",
    "EmbeddedSettings",
    "IsolationSettings",
    "JournalSettings",
    "LeaseSettings",
    "LedgerSettings",
    "NatsSettings",
    "PayloadSettings",
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
