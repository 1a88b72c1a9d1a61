"""Callboard for the frameworks around it; each integration is an extra of its own."""
