"""Lines of handlers on the wire: what is bounded, and what is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.errors import BadInput
from callboard_broker.log_lines import cut, decode_log_batch, level_name, level_number

_BATCH = {
    "task": "7.plan.0",
    "workflow": "7",
    "attempt": 1,
    "host": "h",
    "capability": "plan",
    "trace": "0" * 31 + "1",
    "lines": [{"n": 1, "at": 5, "level": "info", "message": "hello"}],
}


@given(st.text(st.characters(exclude_categories=())), st.integers(60, 300))
def test_a_text_that_is_cut_takes_no_more_room_than_it_may(text: str, most: int):
    found = cut(text, most)
    end = cut(text, most, keep="end")
    assert len(msgspec.json.encode(end)) <= most + 2
    assert len(msgspec.json.encode(found)) <= most + 2  # the quotes


def test_what_is_short_stays_as_it_is_and_what_is_cut_says_how_much_is_missing():
    assert cut("as it is: äöü", 100) == "as it is: äöü"
    assert cut("a" * 1000, 100) == "a" * 57 + "... (943 more)"
    assert cut("begin" + "x" * 1000 + "end", 100, keep="end").endswith("xend")
    assert cut("\ud800", 100) == "\\ud800"


def test_a_batch_is_read_with_its_bounds():
    batch = decode_log_batch(msgspec.json.encode(_BATCH))
    assert (batch.workflow, batch.lines[0].message) == ("7", "hello")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"attempt": 0}, "attempt"),
        ({"task": ""}, "task"),
        ({"v": 2}, "v"),
        ({"lines": [{"n": 0, "at": 5, "level": "info", "message": ""}]}, "lines[0].n"),
        ({"lines": [{"n": 1, "at": 5, "level": "loud", "message": ""}]}, "lines[0].level"),
        (
            {"lines": [{"n": 1, "at": 5, "level": "info", "message": "", "fields": [1]}]},
            "lines[0].fields",
        ),
    ],
)
def test_what_no_host_sends_is_refused_by_its_field(change: dict[str, object], field: str):
    with pytest.raises(BadInput) as refused:
        decode_log_batch(msgspec.json.encode(_BATCH | change))
    assert refused.value.field == field


def test_levels_have_numbers_and_numbers_between_them_the_level_below():
    assert [level_name(number) for number in (0, 10, 25, 30, 99)] == [
        "debug",
        "debug",
        "info",
        "warning",
        "critical",
    ]
    assert level_number("error") == 40
    with pytest.raises(BadInput, match="'loud' is none of debug, info"):
        level_number("loud")
