"""The tracker of workflows and tasks: `cerebral_tasks` with `cerebral_activities`, or one table of
the same idea. A projector mirrors the board into it, and its pending rows can be posted as tasks.

    target = CerebralTarget(PostgresTarget(url), tables, board="cb")
    await run_projector(options, target, beside=Mirror(Names(tenants={"acme": uuid})))

A name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard_integrations.cerebral.mirror import Mirror
    from callboard_integrations.cerebral.names import Names
    from callboard_integrations.cerebral.pulling import Pulled, Puller
    from callboard_integrations.cerebral.target import CerebralTarget, Tables

__all__ = ["CerebralTarget", "Mirror", "Names", "Pulled", "Puller", "Tables"]

_PLACES = MappingProxyType(
    {
        "CerebralTarget": "target",
        "Mirror": "mirror",
        "Names": "names",
        "Pulled": "pulling",
        "Puller": "pulling",
        "Tables": "target",
    }
)
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
