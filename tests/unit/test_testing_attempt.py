"""`run_agent` makes one attempt and shows all that came of it."""

from __future__ import annotations

import asyncio

import pytest

from callboard import BadInput, Context, agent
from callboard.testing import run, run_agent, virtual_time
from tests.testing_agents import double, flaky, odd_result, parent, plain, plain_parent


@agent("chatty")
async def chatty(payload: dict[str, int], ctx: Context) -> dict[str, object]:
    """Say all that can be said."""
    ctx.progress({"at": 1})
    ctx.progress({"at": 2})
    ctx.settle(tokens=payload["tokens"])
    ctx.settle(tokens=1, calls=1)
    child = await ctx.spawn("review", {"file": "a.py"}, key="a")
    return {"review": await child.result(), "key": ctx.idempotency_key, "attempt": ctx.attempt}


def test_an_attempt_shows_its_result_progress_units_and_children():
    outcome = run(run_agent(chatty, {"tokens": 9}, attempt=2, children={"review": "fine"}))
    assert outcome.succeeded
    assert outcome.result["review"] == "fine"
    assert outcome.result["attempt"] == 2
    assert outcome.progress == [{"at": 1}, {"at": 2}]
    assert outcome.used == {"tokens": 10, "calls": 1}
    (child,) = outcome.children
    assert (child.capability, child.payload) == ("review", {"file": "a.py"})


@virtual_time
async def test_children_are_played_by_functions_agents_or_values():
    played = await run_agent(parent, [1, 2], children={"double": lambda payload: payload * 10})
    assert played.result == [10, 20]
    real = await run_agent(plain_parent, [1, 2], children={"double": double})
    assert real.result == [2, 4]
    assert [child.payload for child in real.children] == [1, 2]


@virtual_time
async def test_a_child_that_fails_is_the_parents_to_handle():
    def refuse(_payload: object) -> None:
        raise ValueError("not today")

    outcome = await run_agent(parent, [1], children={"double": refuse})
    assert outcome.failure is not None
    assert outcome.failure.type == "TaskFailed"


@virtual_time
async def test_a_failure_says_what_the_journal_would_say():
    outcome = await run_agent(flaky, {"failures": 5}, attempt=3)
    assert not outcome.succeeded
    assert outcome.failure is not None
    assert (outcome.failure.type, outcome.failure.message) == ("ValueError", "attempt 3 fails")
    bad = await run_agent(plain, {"count": 1})
    assert bad.failure is not None
    assert (bad.failure.type, bad.failure.field) == ("BadInput", "item")
    odd = await run_agent(odd_result)
    assert odd.failure is not None
    assert odd.failure.type == "BadResult"


@virtual_time
async def test_an_attempt_that_takes_too_long_is_stopped():
    @agent("forever")
    async def forever() -> None:
        await asyncio.sleep(10_000)

    outcome = await run_agent(forever, timeout=5)
    assert outcome.failure is not None
    assert outcome.failure.type == "TimedOut"


@virtual_time
async def test_what_no_agent_could_be_given_is_refused():
    with pytest.raises(BadInput):
        await run_agent(double, {1, 2, object()})
    with pytest.raises(BadInput, match="attempt"):
        await run_agent(double, 1, attempt=0)
