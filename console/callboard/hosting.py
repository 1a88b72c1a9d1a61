"""What agent hosts are started with: the settings of a board, in the words of the agents' room."""

from __future__ import annotations

import math

from callboard.connecting import Place
from callboard_agents.child_limits import ChildLimits
from callboard_agents.log_options import LogOptions
from callboard_agents.options import OWN_KEY, HostOptions, host_name
from callboard_agents.policy import Policy
from callboard_agents.scaling import ScalingPolicy
from callboard_broker.errors import BadInput
from callboard_config import AgentSettings
from callboard_config.cpus import usable_cpus

__all__ = ["host_options", "scaling_policy"]

_MOST_PROCESSES = 1000


def host_options(place: Place, *, pool: str, name: str | None = None) -> HostOptions:
    """A host of this board. name: unlike any other host's in its pool."""
    settings = place.settings
    return HostOptions(
        url=place.url,
        prefix=place.prefix,
        pool=pool,
        name=name or host_name(),
        beat_seconds=settings.lease.beat_seconds,
        lease_seconds=settings.lease.lease_seconds,
        hung_seconds=settings.lease.hung_seconds,
        drain_seconds=settings.agents.drain_seconds,
        blob_bytes=settings.payload.blob_bytes,
        slots_inline=settings.agents.slots_inline,
        slots_thread=settings.agents.slots_thread,
        timeout_seconds=settings.agents.timeout_seconds,
        metrics=place.metrics,
        limits=ChildLimits.of(settings.agents),
        policy=Policy.of(settings.isolation),
        signing=_signing(settings.agents),
        log=LogOptions.of(settings.log),
    )


def _signing(agents: AgentSettings) -> str:
    if not agents.sign_outcomes:
        return ""
    return OWN_KEY if agents.signing_key is None else str(agents.signing_key)


def scaling_policy(place: Place, least: int | None, most: str | None) -> ScalingPolicy | None:
    """The bounds that were given, with the board's settings; None if none were."""
    if least is None and most is None:
        return None
    if most in (None, "auto"):
        highest = max(least or 1, math.ceil(usable_cpus()))
    elif most is not None and most.isdigit() and 1 <= int(most) <= _MOST_PROCESSES:
        highest = int(most)
    else:
        raise BadInput("--max", f"{most!r} is neither auto nor 1 to {_MOST_PROCESSES}")
    lowest = 1 if least is None else least
    if lowest > highest:
        raise BadInput("--min", f"{lowest} is more than --max {highest}")
    scaling = place.settings.scaling
    return ScalingPolicy(
        least=lowest,
        most=highest,
        wait_seconds=scaling.wait_seconds,
        quiet_seconds=scaling.quiet_seconds,
        idle_seconds=scaling.idle_seconds,
        busy=scaling.busy,
        reserve_mb=scaling.reserve_mb,
    )
