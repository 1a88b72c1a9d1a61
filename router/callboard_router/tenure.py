"""Which router is the active one: a claim by compare-and-set, and how it ends.

The server decides: every write of a router names the epoch that it believes in, and is refused
when that is over. What stands here only keeps a router from writing in vain: a standby claims when
the active one has been silent, and an active one that was suspended stops until it hears itself.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Role", "Tenure"]


class Role(Enum):
    """FOLLOWER folds along; CLAIMING has written an epoch and waits to read it; LEADER decides."""

    FOLLOWER = "follower"
    CLAIMING = "claiming"
    LEADER = "leader"


_LEADER = Role.LEADER  # looking a member up takes Python 3.11 0.1 us, here for every message


class Tenure:
    """One router's part in the succession. standby, unresolved: seconds (see `Policy`)."""

    def __init__(self, name: str, *, standby: float, unresolved: float) -> None:
        self.name = name
        self.role = Role.FOLLOWER
        self.caught_up = False
        self.renewed = False
        self._standby = standby
        self._unresolved = unresolved
        self._claims = 0
        self._claimed_at = 0.0
        self._heard_leader: float | None = None
        self._heard_self: float | None = None
        self._wants_renewal = False

    @property
    def leads_on(self) -> bool:
        """Whether it is the active router, or was until it claimed an epoch anew."""
        return self.role is _LEADER or (self.role is Role.CLAIMING and self.renewed)

    def start(self, now: float) -> None:
        """The journal is read to its end: from here on silence counts."""
        self.caught_up = True
        if self._heard_leader is None:
            self._heard_leader = now

    def heard(self, router: str, leader: str, at: float) -> None:
        """A beat of the router `router`; `leader` holds the epoch."""
        if router == self.name:
            self._heard_self = max(at, self._heard_self or at)
        elif leader.partition("#")[0] == router:
            self._heard_leader = max(at, self._heard_leader or at)

    def claim(self, now: float, epoch: int) -> str | None:
        """The name to write into a new epoch, if it is time to claim one."""
        if not self.caught_up:
            return None
        if self.role is Role.CLAIMING:
            if now - self._claimed_at <= self._unresolved:
                return None
        elif self.role is Role.LEADER:
            if not self._wants_renewal:
                return None
        elif epoch and not self._is_silent(now):
            return None
        self.renewed = self.role is Role.LEADER
        self.role = Role.CLAIMING
        self._claimed_at = now
        self._claims += 1
        self._wants_renewal = False
        return f"{self.name}#{self._claims}"

    def began(self, router: str, now: float) -> bool:
        """An epoch was read. Returns whether it is this router's latest claim."""
        self._heard_leader = now
        if self.role is Role.CLAIMING and router == f"{self.name}#{self._claims}":
            self.role = Role.LEADER
            return True
        if self.role is not Role.CLAIMING or router.partition("#")[0] != self.name:
            self.role = Role.FOLLOWER
        return False

    def claim_refused(self, router: str, now: float) -> bool:
        """Another router was first. Returns whether this one is a follower again."""
        if self.role is not Role.CLAIMING or router != f"{self.name}#{self._claims}":
            return False
        return self._follow(now)

    def step_down(self, now: float) -> bool:
        """A write under the current epoch was refused: another has begun, and will be read."""
        return self.role is Role.LEADER and self._follow(now)

    def _follow(self, now: float) -> bool:
        self.role = Role.FOLLOWER
        self._heard_leader = now
        self._wants_renewal = False
        return True

    def _is_silent(self, now: float) -> bool:
        """Whoever does not hear itself is deaf, and cannot tell whether others are silent."""
        if self._heard_leader is not None and now - self._heard_leader <= self._standby:
            return False
        return self._hears_itself(now)

    def _hears_itself(self, now: float) -> bool:
        return self._heard_self is not None and now - self._heard_self <= self._standby

    def renew(self, now: float) -> None:
        """Begin a new epoch of its own, so that what is under way can no longer be stored."""
        if self.role is Role.LEADER:
            self._wants_renewal = True
        elif self.role is Role.CLAIMING:
            self._claimed_at = min(self._claimed_at, now - self._unresolved - 1)

    def may_write(self, now: float) -> bool:
        """Whether this router is active, and has not been asleep or cut off."""
        return self.role is Role.LEADER and not self._wants_renewal and self._hears_itself(now)
