"""The examples of docs/agents.md run, and do what the page says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from callboard import Agent, Context

PAGE = Path(__file__).resolve().parents[2] / "docs" / "agents.md"


def examples() -> dict[str, Any]:
    """Everything that the page's blocks define, in one module."""
    found: dict[str, Any] = {"__name__": "examples"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(PAGE), "exec"), found)  # noqa: S102  our own page
    return found


async def test_the_examples_of_the_page_do_what_it_says():
    found = examples()
    agents = {name for name, value in found.items() if isinstance(value, Agent)}
    assert agents >= {"answer", "Classifier", "index", "tell", "migrate", "scan", "measure"}
    assert found["Classifier"]("letter to nobody") == 1
    told: list[tuple[str, bytes]] = []
    ctx = Context(task="1", tell=lambda *said: told.append(said))
    assert await found["tell"](["once", "upon"], ctx) == "once upon"
    assert await found["index"](["a"], ctx) == 1
    assert told[0] == ("output", b'"once "')
    assert told[-1] == ("progress", b'{"done":1,"of":1,"path":"a"}')
    await found["test_a_second_attempt_skips_what_is_done"]()


def test_the_page_speaks_of_everything_that_a_context_has():
    text = PAGE.read_text()
    names = [name for name in dir(Context) if not name.startswith("_")]
    # The host's, or said by another name.
    left_out = {"cancel", "deadline", "heard_at", "page", "used"}
    missing = [name for name in names if f"ctx.{name}" not in text and name not in left_out]
    assert missing == []
    assert inspect.getdoc(Context.output)
