"""The times of a schedule: five fields of crontab(5) in a zone of the IANA database."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from callboard_broker.errors import BadInput
from callboard_broker.posts import Cron

__all__ = ["check_cron", "next_time"]


def next_time(cron: Cron, after_ms: int) -> int:
    """The first time after `after_ms`, both in Unix milliseconds; times that were missed are not
    made up for. Raises `BadInput` that names the field; it never comes, or cannot be read."""
    try:
        zone = ZoneInfo(cron.zone)
    except (LookupError, ValueError, OSError) as error:  # OSError: it names a folder of zones
        raise BadInput("cron.zone", f"{cron.zone!r} is no time zone; see IANA's names") from error
    after = datetime.fromtimestamp(after_ms / 1000, UTC).astimezone(zone)
    try:
        return int(next(CronSim(cron.expression, after)).timestamp() * 1000)
    except StopIteration as error:
        raise BadInput("cron.expression", f"{cron.expression!r} never comes") from error
    except (CronSimError, ValueError) as error:
        raise BadInput("cron.expression", f"{cron.expression!r}: {error}") from error


def check_cron(cron: Cron) -> None:
    """Raise `BadInput` for a schedule that would never make a task."""
    next_time(cron, int(time.time() * 1000))
