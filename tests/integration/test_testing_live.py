"""The public fixtures give a real server, real processes and a whole real board."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callboard import BoardUnreachable, connect
from callboard.testing import NatsServer, NotStartedHere, started_processes

pytest_plugins = ("callboard.testing.pytest_plugin",)

HERE = Path(__file__).parents[1]
PAGE = HERE.parent / "docs" / "testing.md"


async def test_the_fixtures_server_may_be_killed_and_started_again(nats_server: NatsServer):
    async with connect(nats_server.url) as board:
        assert board.connection.connected
    nats_server.kill()
    with pytest.raises(BoardUnreachable):
        async with connect(nats_server.url, tries_seconds=0.1):
            pass
    nats_server.restart()
    async with connect(nats_server.url) as board:
        assert board.connection.connected


def test_a_server_of_somebody_elses_is_not_killed():
    with pytest.raises(NotStartedHere, match="nats://elsewhere"):
        NatsServer(url="nats://elsewhere").kill()


async def test_processes_are_started_one_by_one(nats_server: NatsServer, tmp_path: Path):
    with started_processes(nats_server, tmp_path, cwd=HERE) as processes:
        processes.router("router")
        processes.ledger()
        processes.host("host", "testing_agents.py")
        await processes.says("host is ready", "host")
        async with connect(nats_server.url, prefix=nats_server.prefix) as board:
            assert await (await board.submit("double", 21)).result(timeout=30) == 42


def test_the_pages_example_runs_on_a_real_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("payments.py", "test_payments_live.py"):
        (text,) = re.findall(
            rf"^```python\n# {name}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
        )
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile((tmp_path / "test_payments_live.py").read_text(), "page", "exec"), names)  # noqa: S102  our own page
    test = names["test_a_payment_on_a_real_board"]
    assert callable(test)
    test()
