"""Concurrency budgets: a task takes one token of each of its budgets, all or none.

Tokens are taken at a dispatch that the fold accepts and returned at the outcome or the loss of
that attempt, never anywhere else; so at each point of the journal the tokens in use are exactly
the attempts that run. Keys: `global`, `tenant/<name>`.
"""

from __future__ import annotations

from collections import Counter

from callboard_router.state import State, Task

__all__ = ["GLOBAL", "TENANT_DEFAULT", "give_back", "keys", "limit", "room", "take"]

GLOBAL = "global"
TENANT_DEFAULT = "tenant"


def keys(tenant: str) -> tuple[str, str]:
    """The budgets that a task of `tenant` draws on."""
    return GLOBAL, f"{TENANT_DEFAULT}/{tenant}"


def limit(limits: dict[str, int], key: str) -> int:
    """Tokens of the budget `key`; a tenant without an entry of its own has the default."""
    found = limits.get(key)
    return limits.get(TENANT_DEFAULT, 0) if found is None else found


def take(state: State, task: Task) -> None:
    """At the dispatch."""
    for key in keys(task.tenant):
        state.in_use[key] += 1


def give_back(state: State, task: Task) -> None:
    """At the outcome or the loss."""
    for key in keys(task.tenant):
        state.in_use[key] -= 1
        if not state.in_use[key]:
            del state.in_use[key]


def room(state: State, reserved: Counter[str], key: str) -> int:
    """Tokens of `key` that are neither in use nor reserved for dispatches under way."""
    return limit(state.limits, key) - state.in_use[key] - reserved[key]
