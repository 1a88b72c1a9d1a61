"""Supabase: a projector's target, by its own client."""

from __future__ import annotations

from callboard_integrations.supabase.target import SupabaseTarget

__all__ = ["SupabaseTarget"]
