"""What a handler wants posted as a child of its task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from callboard_broker.posts import Parent

if TYPE_CHECKING:
    from callboard_agents.spawning import Child
    from callboard_broker.options import TaskOptions

__all__ = ["Spawn", "Spawner"]

_MAX_KEY = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """What a handler wants posted. label: which of the parent's children it is."""

    parent: Parent
    tenant: str
    label: str
    capability: str
    payload: Any
    priority: int
    timeout: float | None
    options: TaskOptions

    def key(self, again: int) -> str:
        """The idempotency key of the child, or of the `again`-th one that takes its place."""
        key = f"{self.parent.task}/{self.label}" + (f"/again/{again}" if again else "")
        if len(key) <= _MAX_KEY:
            return key
        return f"spawn/{hashlib.sha256(key.encode()).hexdigest()}"


Spawner = Callable[[Spawn], Coroutine[Any, Any, "Child"]]
