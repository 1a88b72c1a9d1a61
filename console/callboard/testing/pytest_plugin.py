"""Fixtures for pytest: `pytest_plugins = ["callboard.testing.pytest_plugin"]` in a `conftest.py`.

`nats_server` is a real NATS server of the test's own. The boards are context managers and need no
fixture: `memory_board` in a test under `@virtual_time`, `live_board` in one that runs on a real
loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.testing import servers

__all__ = ["nats_server"]


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[servers.NatsServer]:
    """A NATS server with JetStream, which the test may kill and restart."""
    with servers.nats_server(tmp_path / "nats") as server:
        yield server
