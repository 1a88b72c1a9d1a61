"""Words that stand where a tenant's name stands in a subject or a question."""

from __future__ import annotations

__all__ = ["RESERVED_TENANTS"]

RESERVED_TENANTS = frozenset({"all", "refused", "shared"})
