"""The wire messages: what is read, what is refused, and for which field."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.errors import BadInput
from callboard_broker.wire import (
    EVENTS,
    Answered,
    Beat,
    BlobRef,
    Budget,
    Checkpoint,
    Dispatch,
    Entered,
    Epoch,
    Expanded,
    Failure,
    Fired,
    Halted,
    Limit,
    Lost,
    Merged,
    Offer,
    Outcome,
    Quarantined,
    Retrying,
    Settled,
    Skipped,
    decode_beat,
    decode_event,
    decode_flow_run,
    decode_post,
    encode,
)

BLOB = BlobRef("n", 3, "0" * 64)
EXAMPLES = {
    "epoch": Epoch("r#1", 1),
    "dispatch": Dispatch("1", 1, "s", 1, 0, 5, 20.0, payload=msgspec.Raw(b'{"n":1}'), post=7),
    "outcome": Outcome("1", 1, "s", "h", 0, 1, blob=BLOB, error=Failure("Boom", "no")),
    "checkpoint": Checkpoint("1", 1, "s", "h", 3, msgspec.Raw(b'{"n":1}')),
    "lost": Lost("1", 1, 1, "silent", "h"),
    "settled": Settled("1", 1, "failed", Failure("Boom", "no", field="x")),
    "merged": Merged("2", "1", 1),
    "expanded": Expanded("1", "a", 1, 3),
    "entered": Entered("1.s.0", 1, msgspec.Raw(b'{"n":1}')),
    "skipped": Skipped("1.s.0", 1, "its condition does not hold"),
    "retrying": Retrying("1", 2, 1, 1_000, ["h"]),
    "fired": Fired("1", 1, 3, 60_000),
    "answered": Answered("9", 1, Failure("UnknownTask", "no")),
    "halted": Halted("1", 1, "expired", "late"),
    "budget": Budget(1, {"global": Limit(concurrency=2)}, {"tenant/acme": None}, "ada"),
    "quarantined": Quarantined(4, 1, "why"),
}


def test_every_event_has_an_example_here():
    assert EXAMPLES.keys() == EVENTS.keys()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_event_is_read_back_as_it_was_written(kind: str):
    data = encode(EXAMPLES[kind])
    assert json.loads(data)["kind"] == kind
    assert encode(decode_event(kind, data)) == data


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_body_may_not_claim_to_be_another_kind_than_its_subject_says(kind: str):
    other = next(name for name in EXAMPLES if name != kind)
    with pytest.raises(BadInput) as found:
        decode_event(kind, encode(EXAMPLES[other]))
    assert found.value.field == "kind"


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(BadInput, match="surprise"):
        decode_event("surprise", b"{}")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_version_of_the_future_is_refused_by_name(kind: str):
    body = json.loads(encode(EXAMPLES[kind])) | {"v": 2}
    with pytest.raises(BadInput) as found:
        decode_event(kind, json.dumps(body).encode())
    assert found.value.field == "v"


def test_an_event_may_carry_fields_that_this_version_does_not_know():
    body = json.loads(encode(EXAMPLES["lost"])) | {"later": True}
    assert decode_event("lost", json.dumps(body).encode()) == EXAMPLES["lost"]


def test_how_deep_an_event_may_nest_does_not_depend_on_who_reads_it():
    def outcome(levels: int) -> bytes:
        deep = "[" * levels + "]" * levels
        return encode(EXAMPLES["outcome"])[:-1] + f',"result":{deep}}}'.encode()

    assert decode_event("outcome", outcome(255))
    with pytest.raises(BadInput, match="256 levels"):
        decode_event("outcome", outcome(256))


# -- posts


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"null", "body"),
        (b'"text"', "body"),
        (b'{"a": 1}', "a"),
        (b'{"blob": {"name": "n", "size": -1, "digest": ""}}', "blob.size"),
        (b'{"blob": {"name": "n", "odd": 1}}', "blob.odd"),
        (b'{"timeout": 0}', "timeout"),
        (b'{"timeout": 9999999}', "timeout"),
        (b'{"key": "' + b"k" * 257 + b'"}', "key"),
        (b'{"payload": NaN}', "body"),
        (b'{"payload": "\xc3\x28"}', "payload"),
        (b'{"payload": -1e999}', "payload"),
    ],
)
def test_a_bad_post_is_refused_with_the_field_that_must_change(body: bytes, field: str):
    with pytest.raises(BadInput) as found:
        decode_post(body)
    assert found.value.field == field


def test_a_payload_is_kept_byte_for_byte():
    assert bytes(decode_post(b'{"payload": {"b" : 1.0,  "a":[]} }').payload) == (
        b'{"b" : 1.0,  "a":[]}'
    )


def test_brackets_inside_strings_are_not_depth():
    text = json.dumps({"payload": "[" * 500 + '\\"' + "{" * 500})
    assert decode_post(text.encode()).payload


@pytest.mark.parametrize("output", [{"x": {"from": "a"}}, [1], 3, "text"])
def test_a_workflow_may_say_what_its_result_is(output: Any):
    body = {"name": "w", "steps": [{"id": "a", "capability": "plan"}], "output": output}
    found = decode_flow_run(json.dumps(body).encode())
    assert isinstance(found.output, msgspec.Raw)
    assert json.loads(bytes(found.output)) == output
    del body["output"]
    assert decode_flow_run(json.dumps(body).encode()).output is msgspec.UNSET


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [{"id": "Bad Name", "capability": "plan"}]}, "steps[0].id"),
        ({"steps": [{"id": "a", "capability": 7}]}, "steps[0].capability"),
        ({"steps": [{"id": "a", "capability": "p", "needs": []}]}, "steps[0].needs"),
        ({"name": ""}, "name"),
    ],
)
def test_a_bad_workflow_is_refused_with_the_field_that_must_change(
    change: dict[str, Any], field: str
):
    body = {"name": "w", "steps": [{"id": "a", "capability": "plan"}]} | change
    with pytest.raises(BadInput) as found:
        decode_flow_run(json.dumps(body).encode())
    assert found.value.field == field


def test_a_value_in_a_workflow_that_cannot_be_decoded_is_refused_where_it_stands():
    body = b'{"name":"w","steps":[{"id":"a","capability":"p","payload":1e999}]}'
    with pytest.raises(BadInput) as found:
        decode_flow_run(body)
    assert found.value.field == "steps[0].payload"


def test_an_error_message_is_bounded_and_shows_no_control_characters():
    with pytest.raises(BadInput) as found:
        decode_post(json.dumps({"\x1b[2J" + "x" * 1000: 1}).encode())
    assert "\x1b" not in str(found.value)
    assert len(found.value.field) <= 300


def test_a_beat_is_read_back():
    beat = Beat("h", "h-1", "shared", [Offer("plan", 2, 1)], [("1", 1)], fresh_from=9)
    assert decode_beat(encode(beat)) == beat


def test_a_last_beat_ends_the_incarnation_that_it_names_and_what_followed_from_it():
    last = Beat("h", "a", "shared", gone=True)
    assert [last.ends(name) for name in ("a", "a.1", "a.12", "ab", "b")] == [True] * 3 + [False] * 2
    assert not Beat("h", "a", "shared").ends("a")


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_bad_input(data: bytes):
    readers = [decode_post, decode_flow_run, decode_beat]
    readers += [lambda body, kind=kind: decode_event(kind, body) for kind in EVENTS]
    for reader in readers:
        with contextlib.suppress(BadInput):
            reader(data)


@pytest.mark.parametrize("kind", ["outcome", "settled", "lost", "beat", "epoch"])
def test_an_event_that_quotes_our_own_messages_is_refused_like_any_other(kind: str):
    body = b'{"kind": "required field", "state": "Object unknown field"}'
    with pytest.raises(BadInput):
        decode_event(kind, body)


def test_a_body_of_escaped_quotes_is_looked_at_once():
    hostile = b"[" * 65 + b'"' + b'\\"' * 500_000
    with pytest.raises(BadInput):
        decode_post(hostile)
