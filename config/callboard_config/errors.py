"""The one error of the settings: which key, where its value came from, and what to do next."""

from __future__ import annotations

__all__ = ["SettingsError"]


class SettingsError(ValueError):
    """A setting is unknown or not acceptable.

    `.key` is its dotted key (or the name of the environment variable, if that names no key; empty
    when a whole document is refused); `.source` says where it was given.
    """

    def __init__(self, key: str, reason: str, *, source: str) -> None:
        shown = key if key.isprintable() else ascii(key)
        super().__init__(f"{shown} ({source}): {reason}" if key else f"{source}: {reason}")
        self.key = key
        self.reason = reason
        self.source = source

    def __reduce__(self) -> tuple[object, ...]:
        """Let it cross a process boundary: a child that refuses its settings says why."""
        return _again, (self.key, self.reason, self.source)


def _again(key: str, reason: str, source: str) -> SettingsError:
    return SettingsError(key, reason, source=source)
