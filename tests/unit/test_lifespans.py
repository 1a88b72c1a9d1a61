"""What agents need before they work: entered in order, left in reverse, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any, Self

import pytest

from callboard_agents import Host, HostOptions, StartFailed, agent, lifespans
from callboard_agents.lifespans import lifespan, lived, spans_of
from callboard_broker.errors import BadInput


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = ModuleType("a_module_of_the_test")
    monkeypatch.setitem(sys.modules, found.__name__, found)
    return found


def agent_of(module: ModuleType, **options: Any) -> Any:
    def work() -> None: ...

    work.__module__ = module.__name__
    return agent("work", **options)(work)


def test_a_lifespan_is_a_generator_without_parameters():
    with pytest.raises(BadInput, match="is a generator"):
        lifespan(lambda: iter([None]))
    with pytest.raises(BadInput, match="takes no parameters"):

        @lifespan  # type: ignore[arg-type]
        def wrong(_app: object) -> Iterator[None]:
            yield


async def test_lifespans_are_entered_in_order_and_left_in_reverse(module: ModuleType):
    told: list[str] = []

    @lifespan
    def one() -> Iterator[None]:
        told.append("one")
        yield
        told.append("one ends")

    @lifespan
    async def two() -> AsyncIterator[None]:
        told.append("two")
        yield
        told.append("two ends")

    class Model:
        def __enter__(self) -> Self:
            told.append("model")
            return self

        def __exit__(self, *_raised: object) -> None:
            told.append("model ends")

        def __call__(self) -> int:
            return 1

    module.one, module.two, module.again = one, two, one  # type: ignore[attr-defined]
    model = agent("model")(Model)
    async with lived(spans_of([agent_of(module), agent_of(module), model])):
        assert told == ["one", "two", "model"]
    assert told[3:] == ["model ends", "two ends", "one ends"]


async def test_a_start_that_fails_is_named_and_those_before_are_left(module: ModuleType):
    told: list[str] = []

    @lifespan
    def one() -> Iterator[None]:
        yield
        told.append("one ends")

    @lifespan
    async def two() -> AsyncIterator[None]:
        raise OSError("no such database")
        yield

    one.name, two.name = "mine.one", "mine.two"
    module.one, module.two = one, two  # type: ignore[attr-defined]
    with pytest.raises(StartFailed) as found:
        async with lived(spans_of([agent_of(module)])):
            raise AssertionError
    assert str(found.value) == "mine.two does not start: OSError: no such database"
    assert told == ["one ends"]


async def test_an_end_that_fails_or_hangs_does_not_keep_the_others_from_theirs(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    told: list[str] = []
    never = threading.Event()

    @lifespan
    def first() -> Iterator[None]:
        yield
        told.append("first ends")

    @lifespan
    def broken() -> Iterator[None]:
        yield
        raise OSError("cannot flush")

    @lifespan
    async def asleep() -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    @lifespan
    def stuck() -> Iterator[None]:
        yield
        never.wait()

    monkeypatch.setattr(lifespans, "_LEAVE_SECONDS", 0.1)
    module.first, module.broken = first, broken  # type: ignore[attr-defined]
    with caplog.at_level(logging.ERROR):
        async with lived(spans_of([agent_of(module)])):
            pass
    assert told == ["first ends"]
    assert "broken has failed at its end" in caplog.text
    for each in (asleep, stuck):
        module.broken = each  # type: ignore[attr-defined]
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            async with lived(spans_of([agent_of(module)])):
                pass
        assert "does not end within 0.1 s" in caplog.text
    never.set()


def test_an_async_lifespan_is_refused_where_children_are_forked(module: ModuleType):
    @lifespan
    async def pool() -> AsyncIterator[None]:
        yield

    module.pool = pool  # type: ignore[attr-defined]
    work = agent_of(module, isolation="process")
    with pytest.raises(BadInput, match="is async, but agents of its module run in child processes"):
        Host([work], HostOptions(url="nats://x"), places=["x"])
    Host([agent_of(module)], HostOptions(url="nats://x"), places=["x"])


def test_an_agent_class_with_an_async_start_is_refused_where_children_are_forked():
    @agent("model", isolation="process")
    class Model:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_raised: object) -> None: ...

        def __call__(self) -> int:
            return 1

    with pytest.raises(BadInput, match=r"Model: is async"):
        Host([Model], HostOptions(url="nats://x"), places=["x"])
