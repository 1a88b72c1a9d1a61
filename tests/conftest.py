"""What every test has: the `nats` fixture, and coroutine tests without a plugin.

A test that is an `async def` runs to its end on a fresh uvloop, the loop that Callboard uses.
There are no async fixtures: whoever opens, closes, with `async with` inside the test. What a test
says with the `tell` fixture stands at the end of the run's output.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.databases import Database, Postgres, open_postgres
from tests.servers import NatsServer, open_server


def pytest_configure() -> None:
    """Let processes under test be interrupted also where a shell runs the tests in its background,
    which ignores SIGINT, and so would they."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on a loop of its own; leave all others to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asked = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in asked}
    uvloop.run(pyfuncitem.obj(**arguments), debug=False)
    return True


_TOLD = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Have figures of this test printed when the run is over, passed or not."""
    return pytestconfig.stash.setdefault(_TOLD, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was told."""
    told = config.stash.get(_TOLD, [])
    if told:
        terminalreporter.section("figures of this run")
        terminalreporter.write_line("\n".join(told))


@pytest.fixture
def nats(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server with JetStream; see `tests/servers.py` for where it comes from."""
    source = getattr(request, "param", None)
    if source is None:
        in_docker = request.node.get_closest_marker("docker") is not None
        existing = os.environ.get("CALLBOARD_TEST_NATS_URL")
        source = "container" if in_docker else existing or "embedded"
    with open_server(source, tmp_path / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One Postgres for all tests; see `tests/databases.py` for where it comes from."""
    with open_postgres() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Database:
    """An empty database."""
    return postgres.database()
