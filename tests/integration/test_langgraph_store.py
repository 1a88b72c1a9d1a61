"""The store on JetStream beside the one in memory, operation by operation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from callboard_broker.errors import BadInput, TooLarge
from callboard_integrations.langgraph import JetStreamStore
from tests.servers import NatsServer

WORDS = st.sampled_from(["a", "b", "ü >*"])
NAMESPACES = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "a", "long key. with dots"])
FIELDS = st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.lists(st.integers(0, 1))
VALUES = st.dictionaries(st.sampled_from(["n", "m"]), FIELDS, max_size=2) | st.fixed_dictionaries(
    {"n": st.integers(0, 3), "deep": st.fixed_dictionaries({"x": st.integers(0, 1)})}
)
FILTERS = st.one_of(
    st.none(),
    st.fixed_dictionaries({"n": FIELDS}),
    st.fixed_dictionaries({"n": st.fixed_dictionaries({"$ne": FIELDS})}),
    st.just({"deep": {"x": 1}}),
)
CONDITIONS = st.builds(
    MatchCondition,
    match_type=st.sampled_from(["prefix", "suffix"]),
    path=st.lists(WORDS | st.just("*"), max_size=2).map(tuple),
)
OPS = st.one_of(
    st.tuples(NAMESPACES, KEYS, st.none() | VALUES).map(lambda put: PutOp(*put)),
    st.tuples(NAMESPACES, KEYS).map(lambda get: GetOp(*get)),
    st.builds(
        lambda prefix, wanted: SearchOp(prefix, wanted, 100),
        st.lists(WORDS, max_size=2).map(tuple),
        FILTERS,
    ),
    st.builds(
        lambda conditions, depth: ListNamespacesOp(conditions, depth, 100),
        st.none() | st.lists(CONDITIONS, max_size=2).map(tuple),
        st.none() | st.integers(1, 3),
    ),
)


def shown(result: Result) -> Any:
    """Without times, and in an order that does not tell when something was written."""
    if isinstance(result, Item):
        return result.namespace, result.key, result.value
    if isinstance(result, list) and result and isinstance(result[0], Item):
        return sorted(map(shown, result), key=lambda item: item[:2])
    return result


def only_full(model: InMemoryStore, op: Op, result: Result) -> Any:
    """The store in memory goes on to list namespaces that are empty, even ones only asked for."""
    if not isinstance(op, ListNamespacesOp) or result is None:
        return shown(result)
    full = {name for name, items in model._data.items() if items}
    kept = {name: items for name, items in model._data.items() if name in full}
    model._data.clear()
    model._data.update(kept)
    return model.batch([op])[0]


def test_operations_give_what_the_store_in_memory_gives(
    nats: NatsServer, tell: Callable[[str], None]
):
    compared = 0
    with JetStreamStore.from_url(nats.url) as store:

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(batches=st.lists(st.lists(OPS, min_size=1, max_size=4), min_size=1, max_size=6))
        def check(batches: list[list[Op]]) -> None:
            nonlocal compared
            compared += sum(map(len, batches))
            model = InMemoryStore()
            store.on_loop(store._table.purge("cb.items.>"))
            for ops in batches:
                before = [only_full(model, op, []) for op in ops]
                wanted = model.batch(ops)
                for number, (op, found) in enumerate(zip(ops, store.batch(ops), strict=True)):
                    lists = isinstance(op, ListNamespacesOp)
                    assert shown(found) == (before[number] if lists else shown(wanted[number]))

        check()
    tell(f"JetStreamStore: {compared} operations gave what InMemoryStore gives")


async def test_a_search_gives_the_latest_first_in_pages(nats: NatsServer):
    async with JetStreamStore.from_url(nats.url) as store:
        for number in range(300):
            await store.aput(("docs",), str(number), {"n": number})
        await store.aput(("docs",), "7", {"n": 1000})
        found = await store.asearch(("docs",), limit=3)
        assert [item.value["n"] for item in found] == [1000, 299, 298]
        found = await store.asearch(("docs",), filter={"n": {"$lt": 10}}, offset=8, limit=3)
        assert [item.value["n"] for item in found] == [0]
        assert await store.alist_namespaces() == [("docs",)]


async def until_it_ends(get: Callable[[], Awaitable[Item | None]]) -> None:
    async with asyncio.timeout(20):
        while await get() is not None:  # noqa: ASYNC110  the server tells nobody that it expired
            await asyncio.sleep(0.2)


async def test_an_item_ends_with_its_time_and_lives_on_if_it_is_read(nats: NatsServer):
    one_second = 1 / 60
    async with JetStreamStore.from_url(nats.url, ttl={"refresh_on_read": True}) as store:
        await store.aput(("t",), "short", {"n": 1}, ttl=one_second)
        await store.aput(("t",), "read", {"n": 2}, ttl=3 * one_second)
        await store.aput(("t",), "ever", {"n": 3})
        await until_it_ends(lambda: store.aget(("t",), "short", refresh_ttl=False))
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < begun + 4:
            assert await store.aget(("t",), "read") is not None
            await asyncio.sleep(0.2)
        await until_it_ends(lambda: store.aget(("t",), "read", refresh_ttl=False))
        (left,) = await store.asearch(("t",))
        assert left.key == "ever"


async def test_what_the_store_cannot_do_is_refused(nats: NatsServer):
    async with JetStreamStore.from_url(nats.url) as store:
        with pytest.raises(BadInput, match="no index of meanings"):
            await store.asearch(("docs",), query="a cat")
        with pytest.raises(BadInput, match="no index of meanings"):
            await store.aput(("docs",), "k", {"text": "a cat"}, index=["text"])
        with pytest.raises(BadInput, match="value"):
            await store.aput(("docs",), "k", {"n": object()})
        with pytest.raises(TooLarge):
            await store.aput(("docs",), "k", {"n": "x" * 2_000_000})
        with pytest.raises(RuntimeError, match="loop's own thread"):
            store.get(("docs",), "k")
