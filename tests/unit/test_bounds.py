"""How deep and how large a document from outside may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.bounds import check_document, check_size
from callboard_broker.errors import BadInput, TooLarge

DOCUMENTS = st.recursive(
    st.none() | st.text(alphabet='[]{}"\\a\n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet='[{"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=40,
)


def levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


def is_accepted(data: bytes, depth: int) -> bool:
    try:
        check_document(data, depth=depth)
    except BadInput:
        return False
    return True


@given(DOCUMENTS, st.integers(0, 12))
def test_a_document_is_accepted_exactly_up_to_its_depth(value: Any, depth: int):
    wrapped = value
    for _ in range(depth):
        wrapped = [wrapped, {"a]": 1}]
    data = json.dumps(wrapped).encode()
    assert is_accepted(data, levels(wrapped))
    assert levels(wrapped) == 0 or not is_accepted(data, levels(wrapped) - 1)


@pytest.mark.parametrize("depth", [1, 7, 8, 9, 64, 256])
def test_the_limit_itself_is_accepted_and_one_more_level_is_not(depth: int):
    wide = b"[" + b"{},[]," * 300 + b"0"
    assert is_accepted(wide + b",[" * (depth - 1) + b"]" * depth, max(depth, 2))
    assert not is_accepted(b"[" * (depth + 1) + b"]" * (depth + 1), depth)


def test_a_document_that_never_closes_is_refused_without_walking_it():
    with pytest.raises(BadInput, match="64 levels") as found:
        check_document(b"[" * 1_000_000, field="payload")
    assert found.value.field == "payload"


def test_a_document_over_its_size_is_refused_with_both_sizes():
    check_size(b"xx", 2)
    with pytest.raises(TooLarge, match="3 bytes; at most 2"):
        check_size(b"xxx", 2)
