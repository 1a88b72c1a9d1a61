"""The chain around attempts: its order, and what a middleware may do in it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from callboard_agents import Call, Context, GiveUp, HostOptions, Middleware, Next, agent
from callboard_agents.middleware import chained, load_middleware
from callboard_broker.errors import BadInput

heard: list[str] = []


class Note(Middleware):
    def __init__(self, name: str) -> None:
        self.name = name

    async def attempt(self, call: Call, following: Next) -> Any:
        heard.append(f"{self.name} before {call.capability} {call.attempt} {call.payload}")
        try:
            return await following(call)
        finally:
            heard.append(f"{self.name} after")


@agent("double")
async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@agent("triple")
def triple(number: int, ctx: Context) -> int:
    return 3 * number if ctx.tenant == "test" else 0


def call(handler: Any, chain: list[Middleware], payload: bytes = b"7") -> Any:
    start = chained(handler, chain)
    assert start is not None
    result = start(msgspec.Raw(payload), Context(task="1", capability=handler.capability))
    return asyncio.run(result) if handler.is_async else result


@pytest.mark.parametrize(("handler", "result"), [(double, 14), (triple, 21)])
def test_the_first_is_the_outermost(handler: Any, result: int):
    heard.clear()
    assert call(handler, [Note("outer"), Note("inner")]) == result
    name = handler.capability
    assert heard == [
        f"outer before {name} 1 7",
        f"inner before {name} 1 7",
        "inner after",
        "outer after",
    ]


@pytest.mark.parametrize("handler", [double, triple])
def test_payload_and_result_may_be_changed_and_are_checked_as_any(handler: Any):
    class Change(Middleware):
        async def attempt(self, call: Call, following: Next) -> Any:
            changed = call.with_payload(call.payload + 1)
            assert call.payload == 7
            return {"was": await following(changed)}

    assert call(handler, [Change()]) == {"was": call(handler, [Middleware()], b"8")}

    class Spoil(Middleware):
        async def attempt(self, call: Call, following: Next) -> Any:
            return await following(call.with_payload("text"))

    with pytest.raises(BadInput, match="payload: Expected `int`"):
        call(handler, [Spoil()])


@pytest.mark.parametrize("handler", [double, triple])
def test_a_call_may_be_refused(handler: Any):
    class Refuse(Middleware):
        async def attempt(self, call: Call, following: Next) -> Any:  # noqa: ARG002
            raise GiveUp(f"not for {call.tenant}")

    with pytest.raises(GiveUp, match="not for test"):
        call(handler, [Refuse()])


@pytest.mark.parametrize("plain", [True, False])
def test_a_call_may_be_tried_again_after_a_rest(*, plain: bool):
    tries: list[int] = []

    def work(number: int) -> int:
        tries.append(number)
        if len(tries) < 3:
            raise OSError("not yet")
        return number

    async def work_async(number: int) -> int:
        return work(number)

    class Again(Middleware):
        async def attempt(self, call: Call, following: Next) -> Any:
            while True:
                try:
                    return await following(call)
                except OSError:
                    await call.sleep(0.001)

    assert call(agent("work")(work if plain else work_async), [Again()]) == 7
    assert tries == [7, 7, 7]


def test_a_rest_around_a_plain_function_ends_with_the_attempt():
    class Rest(Middleware):
        async def attempt(self, call: Call, following: Next) -> Any:  # noqa: ARG002
            call.context.cancel()
            await call.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        call(triple, [Rest()])


def test_around_a_plain_function_nothing_else_is_awaited():
    class Wait(Middleware):
        async def attempt(self, call: Call, following: Next) -> Any:
            await asyncio.sleep(0)
            return await following(call)

    assert call(double, [Wait()]) == 14
    with pytest.raises(RuntimeError, match=r"await call\.sleep"):
        call(triple, [Wait()])


def test_without_middleware_there_is_no_chain():
    assert chained(double, []) is None


def test_the_chain_of_a_module_comes_after_the_hosts(monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("a_module_of_the_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(triple, "modules", (module.__name__,))
    module.middleware = [Note("module")]  # type: ignore[attr-defined]
    heard.clear()
    call(triple, [Note("host")])
    assert [line.split()[0] for line in heard] == ["host", "module", "module", "host"]

    module.middleware = [Note]  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"write Note\(\)"):
        chained(triple, [])

    class Plain(Middleware):
        def attempt(self, call: Call, following: Next) -> Any:  # type: ignore[override]
            return following(call)

    module.middleware = [Plain()]  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="write `async def`"):
        chained(triple, [])
    module.middleware = [Note("a"), print]  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="is no Middleware"):
        chained(triple, [])
    module.middleware = {"of": "somebody else"}  # type: ignore[attr-defined]
    assert chained(triple, []) is None


def test_a_host_names_its_middleware_by_module_or_file(tmp_path: Path):
    path = tmp_path / "chain.py"
    path.write_text(
        "from callboard import Middleware\n"
        "class A(Middleware): ...\n"
        "one = A()\nmiddleware = [A(), A()]\nnothing = 3\n"
    )
    assert len(load_middleware([f"{path}:one", str(path)])) == 3
    for wrong in (f"{path}:nothing", f"{path}:absent", "no_such_module"):
        with pytest.raises(BadInput, match=wrong):
            load_middleware([wrong])


def test_the_middleware_of_a_host_is_handed_to_its_processes():
    options = HostOptions(url="nats://x", middleware=("a:b", "c.py:d"))
    assert '--middleware=["a:b","c.py:d"]' in options.arguments()
