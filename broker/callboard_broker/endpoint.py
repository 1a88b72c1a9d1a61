"""Where a process shows its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from callboard_broker.errors import BadInput

__all__ = ["Endpoint"]

_MOST = 65_535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address of this machine. Raises `BadInput`."""

    port: int
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        if not 1 <= self.port <= _MOST:
            raise BadInput("metrics.port", f"must be 1 to {_MOST}")

    @property
    def url(self) -> str:
        """What Prometheus is told."""
        return f"http://{self.address}:{self.port}/metrics"

    def plus(self, number: int) -> Endpoint:
        """So many ports further: of another process on the same machine."""
        return Endpoint(self.port + number, self.address)
