"""What a handle makes of the events that are told to it."""

from __future__ import annotations

import asyncio

import pytest

from callboard_broker.errors import CommandRefused, TaskExpired, TaskFailed
from callboard_broker.handle import Chunk, Handle, Update
from callboard_broker.wire import (
    BlobRef,
    Entered,
    Event,
    Expanded,
    Failure,
    Fired,
    Lost,
    Outcome,
    Retrying,
    Settled,
    Skipped,
)

OOPS = Failure("ValueError", "no")


class Board:
    """What a handle needs of a board. It notes what is asked of it, and may refuse."""

    def __init__(self) -> None:
        self.cancelled: list[tuple[str, str]] = []
        self.meant: str | None = None

    async def follow(self, handle: Handle) -> None:
        """Nobody tells anything here."""

    async def blob(self, ref: BlobRef) -> bytes:
        raise LookupError(ref.name)

    async def cancel(self, task: str, reason: str = "", *, tenant: str | None = None) -> None:
        assert tenant == "acme"
        self.cancelled.append((task, reason))
        if self.meant is not None and task != self.meant:
            self.handle.id = self.meant
            raise CommandRefused("cancel", task, "no such task")

    handle: Handle


def outcome(task: str, attempt: int, error: Failure | None = None) -> Outcome:
    return Outcome(task, attempt, "secret", "host", 0, 1, error=error)


async def heard(handle: Handle, *events: Event) -> list[Update]:
    """The updates that these events make, the handle's own state first."""
    updates = aiter(handle)
    seen = [await anext(updates)]
    for event in events:
        handle.told(event)
    handle.end("cancelled", None, None, None)
    return seen + [update async for update in updates]


async def test_an_error_that_is_retried_is_not_the_end():
    handle = Handle(Board(), "7", "acme", 3)
    updates = await heard(handle, outcome("7", 1, OOPS), Retrying("7", 1, 1, 5000), outcome("7", 2))
    assert handle.state == "succeeded"
    assert [(each.state, each.retry_at) for each in updates] == [
        ("waiting", None),
        ("waiting", None),
        ("waiting", 5000),
        ("succeeded", None),
    ]
    assert updates[2].error == OOPS


async def test_a_retry_whose_outcome_was_missed_says_that_it_waits():
    handle = Handle(Board(), "7", "acme", 3)
    handle.news("7", "running", None, "host")
    assert handle.state == "running"
    handle.told(Retrying("7", 1, 1, 5000))
    assert handle.state == "waiting"
    handle.told(outcome("7", 1))  # of the attempt that is over
    assert not handle.done
    handle.told(outcome("7", 2))
    assert handle.done


async def test_the_outcome_of_a_lost_attempt_does_not_count():
    handle = Handle(Board(), "7", "acme", 3)
    handle.told(Lost("7", 1, 1, "its host is gone"))
    handle.told(outcome("7", 1))
    assert not handle.done
    handle.told(outcome("7", 2))
    assert handle.done


async def test_every_way_to_end_has_its_error():
    for state, error in (("expired", TaskExpired), ("failed", TaskFailed)):
        handle = Handle(Board(), "7", "acme", 3)
        handle.told(Settled("7", 1, state, error=OOPS))  # type: ignore[arg-type]  # one of them
        with pytest.raises(error, match="ValueError: no"):
            await handle.result()


async def test_what_happens_inside_a_workflow_is_told_and_does_not_end_it():
    handle = Handle(Board(), "12", "acme", 3)
    updates = await heard(
        handle,
        Expanded("12", "each", 1, items=3),
        Skipped("12.maybe.0", 1, "not wanted"),
        Entered("12.sub.0", 1),
        outcome("12.sub.0.plan.3", 1),
        Settled("12.sub.0", 1, "failed", error=OOPS),
        Settled("12.undo.1", 1, "failed", error=OOPS),
    )
    assert handle.state == "cancelled"
    assert updates[1:] == [
        Update("12.each", items=3),
        Update("12.maybe.0", skipped="not wanted"),
        Update("12.sub.0", "running"),
        Update("12.sub.0.plan.3", "succeeded", host="host"),
        Update("12.sub.0", "failed", error=OOPS),
        Update("12.undo.1", "failed", error=OOPS),
    ]


async def test_a_schedule_tells_of_each_task_that_it_makes():
    handle = Handle(Board(), "12", "acme", 3)
    updates = await heard(
        handle, Fired("12", 1, 0, 60_000), Fired("12", 1, 1, 120_000), outcome("12.cron.1", 1)
    )
    assert [(each.task, each.state) for each in updates[1:]] == [
        ("12.cron.1", "waiting"),
        ("12.cron.1", "succeeded"),
    ]
    assert handle.state != "succeeded"


async def test_the_handle_of_a_part_hears_of_that_part_alone():
    handle = Handle(Board(), "12.sub.0", "acme", 3)
    handle.told(outcome("12.sub.01.x.0", 1))
    handle.told(Settled("12", 1, "failed", error=OOPS))
    handle.told(Settled("12.sub.0.plan.3", 1, "failed", error=OOPS))
    assert not handle.done
    handle.told(Settled("12.sub.0", 1, "succeeded"))
    assert handle.done


async def test_cancelling_what_has_ended_asks_nobody():
    board = Board()
    handle = Handle(board, "7", "acme", 3)
    handle.told(outcome("7", 1))
    await handle.cancel("too late")
    assert board.cancelled == []


async def test_cancelling_a_repeated_post_reaches_the_task_that_it_repeats():
    board = Board()
    board.handle = Handle(board, "9", "acme", 3)
    board.meant = "7"
    await board.handle.cancel("not needed")
    assert board.cancelled == [("9", "not needed"), ("7", "not needed")]


async def test_a_refused_cancel_is_raised():
    board = Board()
    board.handle = Handle(board, "9", "acme", 3)
    board.meant = "9"

    async def refuse(task: str, reason: str = "", *, tenant: str | None = None) -> None:
        raise CommandRefused("cancel", task, f"not yours: {tenant}{reason}")

    board.cancel = refuse  # type: ignore[method-assign]  # a board that always refuses
    with pytest.raises(CommandRefused, match="not yours: acme"):
        await board.handle.cancel()


async def test_parts_of_the_result_are_followed_to_the_end():
    handle = Handle(Board(), "7", "acme", 3)
    parts = handle.output()
    first = asyncio.ensure_future(anext(parts))
    await asyncio.sleep(0)
    handle.news("7", "running", None, "host")
    for number, value in ((1, "a"), (2, None), (4, {"n": 1})):
        handle.given(Chunk("7", 1, number, value))
    handle.end("succeeded", b"1", None, None)
    handle.given(Chunk("7", 1, 5, "too late"))
    found = [await first] + [chunk async for chunk in parts]
    assert [(chunk.number, chunk.value) for chunk in found] == [(1, "a"), (2, None), (4, {"n": 1})]


async def test_the_handle_of_a_step_hears_only_its_own_parts():
    handle = Handle(Board(), "7.a.0", "acme", 3)
    parts = handle.output()
    first = asyncio.ensure_future(anext(parts))
    await asyncio.sleep(0)
    handle.given(Chunk("7.a.1", 1, 1, "another's"))
    handle.given(Chunk("7.a.0", 1, 1, "mine"))
    assert (await first).value == "mine"
    await parts.aclose()
