"""What a budget allows, as the settings say it and as the journal keeps it.

Every field is optional: what is left out is not limited, or stays as another entry has it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from callboard_broker.posts import Amount, Seconds, Unit

__all__ = ["Limit", "Quota", "over"]


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much of a unit: `limit` within each `per` seconds (it refills steadily), or in all."""

    limit: Amount
    per: Seconds | None = None


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one budget allows; whatever is left out is not limited.

    concurrency: attempts at once. rate: dispatches a second, and burst: how many at once after a
    rest. units: e.g. LLM tokens. For tenants also weight: its share where several compete,
    guaranteed: attempts at once that come before any share, waiting: tasks that may wait.
    """

    concurrency: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    rate: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    burst: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    units: Annotated[dict[Unit, Quota], Meta(max_length=16)] = {}
    weight: Annotated[float, Meta(gt=0, le=1000)] | None = None
    guaranteed: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    waiting: Annotated[int, Meta(ge=0, le=100_000_000)] | None = None


def over(first: Limit | None, second: Limit | None) -> Limit:
    """What `first` says, and where it says nothing, what `second` says; units one by one."""
    if first is None or second is None:
        return first or second or Limit()
    said = {
        name: value
        for name in Limit.__struct_fields__
        if name != "units" and (value := getattr(first, name)) is not None
    }
    return msgspec.structs.replace(second, units={**second.units, **first.units}, **said)
