"""Does a host fit what a task needs? Each misfit has a reason that names what is asked and had.

A misfit lasts until the host or its agent is another one; a shortage passes: a slot, CPU or memory
that is in use now. Versions and ranges are those of PEP 440 (`packaging`), read once each.
"""

from __future__ import annotations

import functools

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from callboard_broker.errors import BadInput
from callboard_broker.wire import Beat, Needs, Offer

__all__ = ["check_needs", "fits", "is_too_small", "misfits", "shortage"]

_OWN = 0.05  # of its cores that a host may take for itself; at 0.95 it starts nothing more
_CACHED = 4096


def check_needs(needs: Needs) -> None:
    """Raise `BadInput("needs.version")` for a range that cannot be read; nothing ever fits it."""
    if needs.version and _range(needs.version) is None:
        raise BadInput(
            "needs.version",
            f"{needs.version[:80]!r} is no range of versions; write it as in >=1.2,<2",
        )


def fits(needs: Needs, beat: Beat, offer: Offer) -> bool:
    """Whether nothing about the host or its agent stands against the task; see `shortage`."""
    return not misfits(needs, beat, offer)


def misfits(needs: Needs, beat: Beat, offer: Offer) -> list[str]:
    """What stands against working on the task there, for as long as host and agent are as they are.

    needs.stay_with: the name of a host here; a step's name is resolved by the caller.
    """
    found = []
    if needs.stay_with is not None and needs.stay_with != beat.host:
        found.append(f"stay_with: must run on {needs.stay_with}")
    if needs.avoid:
        if beat.host in needs.avoid:
            found.append(f"avoid: the host {beat.host} is to be avoided")
        if offer.agent and offer.agent in needs.avoid:
            found.append(f"avoid: the agent {offer.agent} is to be avoided")
    lacking = [word for word in needs.specialization if word not in offer.specialization]
    if lacking:
        found.append(f"specialization: not in {', '.join(lacking)}")
    if needs.version and not _is_within(needs.version, offer.version):
        had = f"{offer.version[:64]!r}" if offer.version else "none"
        found.append(f"version: {had}, must be {needs.version}")
    for name, value in needs.labels.items():
        if offer.labels.get(name) != value:
            had = f"is {offer.labels[name]}" if name in offer.labels else "is not set"
            found.append(f"labels: {name} {had}, must be {value}")
    if needs.cpu is not None and beat.cpus < needs.cpu:
        had = f"{beat.cpus:g} cores" if beat.cpus > 0 else "its cores are not known"
        found.append(f"cpu: {had}, must have {needs.cpu:g}")
    if needs.memory_mb is not None and beat.free_mb <= 0:
        found.append(f"memory_mb: its free memory is not known, must be {needs.memory_mb:g}")
    return found


def shortage(needs: Needs, beat: Beat, offer: Offer, *, at_once: int = 1) -> str | None:
    """What the host is short of now, by its last beat: CPU or memory; None if it has enough.

    A beat's CPU is the whole host's: what runs in its children, and the little that it takes to
    run them, for which nobody shall wait.
    at_once: attempts that may take it: this one, and those on their way which no beat has shown.
    What the agent declares of itself counts where the task asks for nothing, as far as it is
    measured.
    """
    cpu = offer.cpu if needs.cpu is None else needs.cpu
    free = beat.cpus - beat.cpu
    if cpu is not None and beat.cpus > 0 and free + _OWN * beat.cpus < cpu * at_once:
        return f"cpu: {max(0.0, free):.3g} cores free, {_needs(cpu, at_once)}"
    memory = offer.memory_mb if needs.memory_mb is None else needs.memory_mb
    if memory is not None and beat.free_mb > 0 and beat.free_mb < memory * at_once:
        return f"memory_mb: {beat.free_mb:.0f} MB free, {_needs(memory, at_once)}"
    return None


def is_too_small(needs: Needs, beat: Beat, offer: Offer) -> bool:
    """Whether the host is short of memory also when all that runs there has ended."""
    memory = offer.memory_mb if needs.memory_mb is None else needs.memory_mb
    most = beat.free_mb + beat.allocated_mb + beat.memory_mb
    return memory is not None and beat.free_mb > 0 and most < memory


def _needs(amount: float, at_once: int) -> str:
    return f"needs {amount:g}" + (f" for each of {at_once} attempts" if at_once > 1 else "")


@functools.lru_cache(_CACHED)
def _range(text: str) -> SpecifierSet | None:
    try:
        return SpecifierSet(text)
    except InvalidSpecifier:
        return None


@functools.lru_cache(4 * _CACHED)
def _is_within(wanted: str, version: str) -> bool:
    """As PEP 440 has it: a pre-release only counts where the range itself names one."""
    accepted = _range(wanted)
    if accepted is None or not version:
        return False
    try:
        return accepted.contains(Version(version), prereleases=bool(accepted.prereleases))
    except InvalidVersion:
        return False
