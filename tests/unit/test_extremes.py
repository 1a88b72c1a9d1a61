"""Whatever numbers posters and hosts write, a router reads on and decides on.

JSON knows no bounds: a number may be as large, small or long as its writer likes, and everyone's
router reads it. Each case is one message with one such number, and an honest task after it.
"""

from __future__ import annotations

import json

import pytest

from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure, Limit, Quota, decode_beat
from callboard_router.desk import Policy
from tests.simulation.leader import Leader

_NUMBERS = ["1e308", "-1e308", "-1", "0", "5e-324", "9223372036854775808", f"1{'0' * 400}"]
_POST = [
    *("delay", "timeout", "priority", "shard", "timeouts.total", "timeouts.queue"),
    *("timeouts.start", "timeouts.heartbeat", "retry.attempts", "retry.delay", "retry.factor"),
    *("retry.max_delay", "needs.cpu", "needs.memory_mb", "units.tokens"),
]
_MONTH_MS = 30 * 86_400_000


def led(limit: Limit | None = None) -> Leader:
    limits = {"global": limit or Limit(concurrency=5, units={"tokens": Quota(100.0, 5.0)})}
    found = Leader(Policy(limits=limits))
    found.host("h", "plan", slots=4)
    return found.lead()


def goes_on(board: Leader) -> None:
    """Time passes, and an honest task is given out and ends."""
    board.now += 100
    board.beat()
    name = board.post(needs={"avoid": ["somebody"]})
    board.turn()
    board.finish(name)
    board.turn()
    assert board.engine.state.tasks.get(name) is None


@pytest.mark.parametrize("number", _NUMBERS, ids=lambda text: text[:12])
@pytest.mark.parametrize("field", _POST)
def test_no_number_in_a_post_stops_the_router(field: str, number: str):
    board = led()
    record, _, name = field.partition(".")
    value = f'{{"{name}": {number}}}' if name else number
    task = board.store("cb.task.acme.plan", f'{{"{record}": {value}}}'.encode())
    board.turn()
    if task in board.dispatched:
        board.finish(task, error=Failure("Boom", "no"))
        board.turn()
    board.engine.explain("acme", task, board.at_ms)
    goes_on(board)


@pytest.mark.parametrize("number", _NUMBERS, ids=lambda text: text[:12])
@pytest.mark.parametrize("field", ["attempt", "started_at", "ended_at", "used", "retry_after"])
def test_no_number_in_an_outcome_stops_the_router(field: str, number: str):
    board = led()
    task = board.post(retry={"attempts": 3}, units={"tokens": 3})
    board.turn()
    said = {"attempt": 1, "secret": board.dispatched[task].secret, "host": "h"}
    said |= {"kind": "outcome", "task": task, "started_at": 0, "ended_at": 0, field: "NUMBER"}
    if field == "used":
        said["used"] = {"tokens": "NUMBER"}
    if field == "retry_after":
        del said[field]
        said["error"] = {"type": "Boom", "message": "no", "retry_after": "NUMBER"}
    text = json.dumps(said).replace('"NUMBER"', number)
    board.store("cb.run.acme.outcome.0", text.encode())
    board.turn()
    found = board.engine.state.tasks.get(task)
    assert found is None or found.not_before <= board.at_ms + _MONTH_MS
    if field != "used":  # what was used may be a debt that the budget pays off for a long time
        goes_on(board)


def test_a_host_may_call_itself_what_it_likes_and_the_retry_is_an_event_of_a_few_bytes():
    board = led()
    task = board.post(retry={"attempts": 3, "delay": 0, "elsewhere": True})
    board.turn()
    said = {"kind": "outcome", "task": task, "attempt": 1, "host": "x" * 1_000_000}
    said |= {"secret": board.dispatched[task].secret, "started_at": 0, "ended_at": 0}
    said["error"] = {"type": "Boom", "message": "no"}
    board.store("cb.run.acme.outcome.0", json.dumps(said).encode())
    stored = len(board.journal)
    board.turn()
    board.now += 1
    board.turn()
    assert board.engine.state.tasks[task].life.attempt == 2
    assert max(len(data) for _, data in board.journal[stored:]) < 2000
    assert not board.engine.desk.performance.records


@pytest.mark.parametrize("number", _NUMBERS, ids=lambda text: text[:12])
@pytest.mark.parametrize("field", ["cpu", "cpus", "free_mb", "fresh_from", "slots", "memory_mb"])
def test_no_number_in_a_beat_stops_the_router(field: str, number: str):
    board = led()
    offer = f'{{"capability": "plan", "slots": {number if field == "slots" else 4}, "free": 4'
    offer += f', "memory_mb": {number if field == "memory_mb" else 1}}}'
    said = f'{{"host": "x", "incarnation": "x-1", "pool": "shared", "offers": [{offer}]'
    said += f', "{field}": {number}}}' if field in ("cpu", "cpus", "free_mb", "fresh_from") else "}"
    try:
        beat = decode_beat(said.encode())
    except BadInput:
        return
    board.engine.heard(beat, at=board.now)
    task = board.post(needs={"cpu": 1, "memory_mb": 10})
    board.now += 0.2
    board.turn()
    board.engine.explain("acme", task, board.at_ms)
    goes_on(board)


@pytest.mark.parametrize("rate", [1e-300, 1e-307, 5e-324, 1e9])
def test_a_rate_as_low_as_somebody_likes_is_waited_for_and_explained(rate: float):
    board = led(Limit(rate=rate, burst=1.0))
    board.post()
    waits = board.post()
    board.turn()
    assert board.engine.explain("acme", waits, board.at_ms) is not None
    assert (board.engine.next_ms() or 0) < 10**14
