"""What `@agent` accepts, what it refuses by name, and what stays of the function."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from callboard_agents import Context, HostOptions, agent
from callboard_agents.lane import Lane
from callboard_agents.resources import Resources
from callboard_broker.errors import BadInput
from callboard_broker.wire import Beat, Offer, decode_beat, encode

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Source:
    text: str


@agent(
    "review.python",
    timeout=60,
    memory_mb=512,
    cpu=1.5,
    slots=4,
    version="1.2",
    specialization=["security", "sql"],
    labels={"region": "eu"},
)
def review(source: Source, ctx: Context) -> str:
    """Review."""
    return f"{source.text} {ctx.task}"


def run(agent_: Any, payload: bytes = b"null", context: Context | None = None) -> Any:
    return agent_.start(msgspec.Raw(payload), context)


def test_an_agent_is_still_the_function():
    assert review(Source("a"), Context(task="7")) == "a 7"
    assert review.__name__ == "review"
    assert review.__doc__ == "Review."


def test_an_agent_says_what_it_declared():
    assert (review.capability, review.name, review.version) == ("review.python", "review", "1.2")
    assert (review.timeout, review.slots, review.memory_mb, review.cpu) == (60, 4, 512, 1.5)
    assert review.specialization == ("security", "sql")
    assert review.labels == {"region": "eu"}


def test_a_beat_offers_what_an_agent_declared_within_the_bounds_of_a_beat():
    def x() -> None: ...

    x.__name__ = "x" * 1_000
    plain = agent("plain")(x)
    options = HostOptions(url="nats://nowhere", name="host-1")
    resources = Resources(4.0, 4096.0, changed=lambda: None)
    lanes = [Lane(each, options, resources.claim(each), lambda: True) for each in (review, plain)]
    offers = [lane.offer(lane.slots) for lane in lanes]
    beat = decode_beat(encode(Beat("host-1", "i", "shared", offers)))
    assert beat.offers[0] == Offer(
        "review.python",
        4,
        4,
        agent="review",
        version="1.2",
        specialization=["security", "sql"],
        labels={"region": "eu"},
        cpu=1.5,
        memory_mb=512,
    )
    assert beat.offers[1].agent == "x" * 128


def test_a_host_whose_name_is_a_number_is_refused():
    for name in ("7", "255", "Host", "a.b"):
        with pytest.raises(BadInput) as refused:
            HostOptions(url="nats://nowhere", name=name)
        assert refused.value.field == "name"
    assert HostOptions(url="nats://nowhere").name


def test_an_async_function_runs_inline_and_a_plain_one_in_a_thread():
    @agent("a")
    async def asynchronous() -> None: ...

    @agent("b")
    def plain() -> None: ...

    @agent("c", isolation="inline")
    def trusted() -> None: ...

    assert (asynchronous.isolation, asynchronous.is_async) == ("inline", True)
    assert (plain.isolation, plain.is_async) == ("thread", False)
    assert trusted.isolation == "inline"


def test_payload_and_context_reach_the_handler_in_every_signature():
    context = Context(task="7")

    @agent("a")
    def nothing() -> str:
        return "nothing"

    @agent("b")
    def only_context(ctx: Any) -> str:
        return str(ctx.task)

    @agent("c")
    def by_annotation(source: Source, *, around: Context) -> str:
        return f"{source.text}{around.task}"

    @agent("d")
    def with_default(limit: int = 5, other: int = 1) -> int:
        return limit + other

    @agent("e")
    def untyped(anything) -> Any:  # noqa: ANN001  the point
        return anything

    assert run(nothing, b'{"ignored": 1}') == "nothing"
    assert run(only_context, context=context) == "7"
    assert run(by_annotation, b'{"text": "a"}', context) == "a7"
    assert run(with_default) == 6
    assert run(with_default, b"2") == 3
    assert run(untyped, b"[1]") == [1]
    assert not untyped.takes_context
    assert by_annotation.takes_context


def test_a_class_becomes_one_instance_whose_call_is_the_handler():
    made = []

    @agent("review")
    class Reviewer:
        def __init__(self) -> None:
            made.append(self)

        async def __call__(self, source: Source) -> str:
            return source.text

    assert Reviewer.is_async
    assert Reviewer.name == "Reviewer"
    first, second = run(Reviewer, b'{"text": "a"}'), run(Reviewer, b'{"text": "b"}')
    assert len(made) == 1
    first.close()
    second.close()


def test_an_instance_and_a_partial_are_handlers_too():
    class Adder:
        def __init__(self, more: int) -> None:
            self.more = more

        def __call__(self, number: int) -> int:
            return number + self.more

    async def multiply(number: int, factor: int = 3) -> int:
        return number * factor

    adder = agent("add")(Adder(2))
    assert run(adder, b"1") == 3
    assert adder.name == "Adder"
    assert agent("multiply")(functools.partial(multiply, factor=2)).is_async


def test_an_annotation_that_exists_only_for_the_type_checker_may_stand_at_the_return():
    @agent("a")
    def handler(number: int) -> Decimal: ...  # type: ignore[empty-body]  # never called

    assert handler.capability == "a"


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("capability", {"capability": "Review Python"}),
        ("capability", {"capability": ""}),
        ("capability", {"capability": "review.*"}),
        ("isolation", {"isolation": "space"}),
        ("slots", {"slots": 0}),
        ("slots", {"slots": 1.5}),
        ("slots", {"slots": True}),
        ("timeout", {"timeout": -1}),
        ("timeout", {"timeout": float("nan")}),
        ("memory_mb", {"memory_mb": 0}),
        ("cpu", {"cpu": "1"}),
        ("name", {"name": ""}),
        ("name", {"name": "x" * 129}),
        ("version", {"version": 1.2}),
        ("version", {"version": "1" * 65}),
        ("specialization", {"specialization": "security"}),
        ("specialization", {"specialization": ["a", 3]}),
        ("specialization", {"specialization": ["a"] * 33}),
        ("specialization", {"specialization": ["a\nb"]}),
        ("labels", {"labels": ["region"]}),
        ("labels", {"labels": {"": "eu"}}),
        ("labels.region", {"labels": {"region": 3}}),
    ],
)
def test_a_wrong_declaration_names_its_field(field: str, given: dict[str, Any]):
    with pytest.raises(BadInput) as refused:
        agent(given.pop("capability", "review"), **given)
    assert refused.value.field == field


def test_a_function_that_cannot_be_a_handler_is_refused_by_what_is_wrong():
    declare = agent("a")

    def two(first: int, second: int) -> None: ...
    def context_first(ctx: Context, payload: int) -> None: ...
    def generator() -> Any:
        yield 1

    async def async_generator() -> Any:
        yield 1

    async def asynchronous() -> None: ...
    def unknown(number: Decimal) -> None: ...
    def positional(number: int, ctx: Context, /) -> None: ...

    class NoCall: ...

    for function, field in [
        (two, "second"),
        (context_first, "payload"),
        (generator, "function"),
        (async_generator, "function"),
        (unknown, "number"),
        (positional, "ctx"),
        (NoCall, "function"),
        (review, "function"),
    ]:
        with pytest.raises(BadInput) as refused:
            declare(function)
        assert refused.value.field == field
    with pytest.raises(BadInput) as refused:
        agent("a", isolation="thread")(asynchronous)
    assert refused.value.field == "isolation"
