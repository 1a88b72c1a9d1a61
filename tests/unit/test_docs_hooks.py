"""The examples of docs/hooks.md run, and do what the page says."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import ModuleType

import pytest

from callboard.testing import memory_board, virtual_time
from callboard_agents.loading import load_module

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hooks.md"


def example(folder: Path, holds: str) -> ModuleType:
    """The module that the page's block with this text is."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if holds in block]
    (folder / "example.py").write_text(block)
    return load_module(str(folder / "example.py"))


@pytest.mark.parametrize(
    ("holds", "capability", "payload", "result"),
    [
        ("@lifespan", "word.known", "hello", True),
        ("__enter__", "text.embed", "hello", [0.1, 0.2]),
        ("class Timing", "hello", "Ada", "hello Ada"),
    ],
)
def test_the_agents_of_the_page_work(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    holds: str,
    capability: str,
    payload: str,
    result: object,
):
    module = example(tmp_path, holds)

    @virtual_time
    async def work() -> None:
        async with memory_board([module]) as board:
            handle = await board.submit(capability, payload)
            assert await handle.result() == result

    with caplog.at_level(logging.INFO, logger="callboard.agent"):
        work()
    assert ("ms" in caplog.text) == (holds == "class Timing")


def test_the_middleware_of_the_page_changes_what_is_posted(tmp_path: Path):
    traced = example(tmp_path, "SubmitMiddleware").Traced()

    @virtual_time
    async def work() -> None:
        async with memory_board([], middleware=[traced]) as board:
            handle = await board.submit("hello", {"name": "Ada"})
            (post,) = [event for event in board.events if event.kind == "post"]
            assert b"4bf92f35" in bytes(post.event.payload)
            await handle.cancel()

    work()
