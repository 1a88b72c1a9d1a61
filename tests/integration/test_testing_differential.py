"""The board in memory and a real one end the same tasks and workflows alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from callboard.testing import live_board, memory_board, run
from tests.harness_scenario import ends_of_everything

AGENTS = str(Path(__file__).parents[1] / "testing_agents.py")


@pytest.mark.timeout(120)
def test_the_board_in_memory_ends_everything_as_a_real_board_does():
    async def in_memory() -> dict[str, object]:
        async with memory_board(AGENTS) as board:
            return await ends_of_everything(board)

    async def live() -> dict[str, object]:
        async with live_board([AGENTS]) as board:
            return await ends_of_everything(board)

    found = run(in_memory())
    assert found == uvloop.run(live())
    assert {state for state, _ in map(tuple, _ends(found))} == {
        "succeeded",
        "failed",
        "cancelled",
        "expired",
    }


def _ends(found: dict[str, object]) -> list[list[object]]:
    return [end for end in found.values() if isinstance(end, list) and isinstance(end[0], str)]
