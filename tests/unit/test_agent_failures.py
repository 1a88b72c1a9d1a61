"""What is recorded of an error is bounded, and can always be written."""

from __future__ import annotations

import msgspec

from callboard_agents import GiveUp
from callboard_agents.failures import (
    cancelled,
    failure_of,
    heartbeat_missed,
    timed_out,
    with_peak,
)
from callboard_agents.results import check_result, encode_result
from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure


def caught(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001  every kind is recorded
        return failure_of(raised)


def test_an_error_is_recorded_by_class_message_and_place():
    failure = caught(ValueError("no such file"))
    assert (failure.type, failure.message) == ("ValueError", "no such file")
    assert failure.trace is not None
    assert "raise error" in failure.trace


def test_bad_input_keeps_the_name_of_the_field():
    failure = caught(BadInput("files[0].path", "must be text"))
    assert failure.field == "files[0].path"
    assert failure.line == "BadInput: files[0].path: must be text"


def test_the_field_of_a_bad_result_is_named_once():
    _, failure = encode_result({"score": float("nan")})
    assert failure is not None
    assert failure.line.startswith("BadResult: result.score: nan is not a number")
    _, failure = check_result(b"{")
    assert failure is not None
    assert failure.line.startswith("BadResult: result: is no JSON")


def test_a_timeout_says_how_long_the_handler_ran():
    assert timed_out(0.523, 0.5).line == "TimedOut: it ran 0.52 s, of 0.5 that are granted"
    waited = timed_out(300.0, 300.0, begun=False)
    assert waited.message == "it had not begun after 300.00 s, of 300 that are granted"


def test_a_huge_message_and_a_deep_trace_are_cut():
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise RuntimeError("x" * 1_000_000)

    try:
        deep(200)
    except RuntimeError as error:
        failure = failure_of(error)
    assert len(failure.message) <= 2_000
    assert len(failure.trace or "") <= 4_000


def test_a_message_that_is_no_text_or_raises_itself_can_still_be_written():
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "RuntimeError" in caught(Rude()).message
    assert msgspec.json.encode(caught(ValueError("\udc80")))


def test_an_error_says_by_itself_whether_a_retry_could_help():
    class Closed(Exception):
        retry = False

    class Throttled(Exception):
        def __init__(self, retry_after: object) -> None:
            self.retry_after = retry_after

    class Rude(Exception):
        @property
        def retry(self) -> bool:
            raise RuntimeError("no")

    assert caught(GiveUp("closed")).final
    assert caught(Closed()).final
    assert not caught(ValueError()).final
    assert not caught(Rude()).final
    assert caught(Throttled(2)).retry_after == 2
    assert caught(Throttled(-1)).retry_after == 0
    for nonsense in ("soon", True, float("nan"), None):
        assert caught(Throttled(nonsense)).retry_after is None
    assert not caught(Throttled(2)).final


def test_a_cancellation_is_final_and_says_why():
    assert cancelled("by ada") == Failure("Cancelled", "by ada", final=True)
    assert cancelled("").message == "cancelled"
    assert len(cancelled("x" * 10_000).message) == 2_000


def test_what_a_sign_of_life_would_be_is_said_of_handlers_and_of_commands():
    assert "ctx.heartbeat()" in heartbeat_missed(2.5).message
    assert heartbeat_missed(2.5, command=True).message == (
        "for more than 2.5 s no sign of life: no line on standard error"
    )


def test_a_child_without_memory_is_told_of_with_what_was_measured():
    failure = Failure("MemoryExceeded", "more than the 64 MiB that are granted")
    said = "more than the 64 MiB that are granted; its peak was 60.5 MiB"
    assert with_peak(failure, 60.5).message == said
    measured = Failure("MemoryExceeded", "the kernel ended it at 64 MiB, of 64 granted")
    assert with_peak(measured, 64.0) == measured
    assert with_peak(failure, 0.0) == failure
