"""The settings of the tracker: its tables, and how it calls the board's tenants and projects."""

from __future__ import annotations

import uuid
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from callboard_config.section import Section, TenantName, disagreement

__all__ = ["CerebralSettings"]


def _check_uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("not a UUID such as 6f1d4b0e-93a4-4f5c-8a51-0d2f6b1c7e90") from None


TableName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$")]
UuidText = Annotated[str, AfterValidator(_check_uuid)]


class CerebralSettings(Section):
    """The tracker into which `callboard cerebral mirror` writes."""

    tasks: TableName
    """Its table of tasks, in the schema `public` or with one: `cerebral_tasks`, or one with fewer
    columns such as `cerebraflow_tasks`."""

    activities: TableName | None
    """Its table of activities; null: none."""

    tenants: dict[TenantName, UuidText]
    """The tracker's UUIDs of the board's tenants, and those whose rows are pulled. A tenant that is
    not listed gets one that is derived from its name."""

    projects: dict[TenantName, UuidText]
    """The project of all that a tenant does; else derived from its name."""

    capability: Annotated[str, Field(min_length=1, max_length=128)] | None
    """Who works on pulled rows whose `metadata.capability` is missing; null: nobody, they are
    refused."""

    poll_seconds: Annotated[float, Field(ge=0.1, le=3600)]
    """How often `callboard cerebral pull --follow` looks for new rows."""

    @model_validator(mode="after")
    def _tenants_stay_apart(self) -> Self:
        seen: dict[str, str] = {}
        for tenant, known_as in self.tenants.items():
            if known_as in seen:
                raise disagreement(
                    f"tenants {seen[known_as]} and {tenant} would see each other's rows: each "
                    "needs a UUID of its own",
                    f"tenants.{seen[known_as]}",
                    f"tenants.{tenant}",
                )
            seen[known_as] = tenant
        return self
