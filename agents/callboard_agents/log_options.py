"""What a host says of itself, and how much of what its handlers log it passes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from callboard_broker.log_lines import Level
from callboard_broker.logs import LogFormat

if TYPE_CHECKING:
    from callboard_config import LogSettings

__all__ = ["LogOptions"]


class LogOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """lines: of one attempt. rate: of one attempt, lines a second."""

    format: LogFormat = "auto"
    level: Level = "info"
    lines: Annotated[int, Meta(ge=1)] = 10_000
    rate: Annotated[float, Meta(gt=0)] = 200.0

    @classmethod
    def of(cls, settings: LogSettings) -> LogOptions:
        """Those of the settings."""
        return cls(settings.format, settings.level, settings.lines, settings.rate)
