"""The ledger and the router read one journal the same way: worlds full of faults, record by record.

The ledger sees a step only when something of it begins or ends, and carries a command out when the
router says so; within that, what one of them counts the other counts, and every life is the same.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from callboard_broker.record import Record
from callboard_broker.rule import Life
from callboard_broker.subjects import Subjects
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.rows import Task
from callboard_router.fold import apply
from callboard_router.state import State
from tests.simulation import scenario
from tests.simulation.server import Stored
from tests.simulation.world import Violation

_SAVE_EVERY = 50
_EACH = 10


def journal_of(seed: int) -> list[Stored]:
    """What is stored in the world of this seed; whether all is well in it is not asked here."""
    world = scenario._Scenario(seed, storm=False)
    with suppress(Violation):
        world.run()
    return world.server.journal


def life(found: Life) -> tuple[object, ...]:
    """What both know. Why a post is refused that can be read, the ledger may learn by its end."""
    failed = found.failure is not None and found.failure.type not in ("Overloaded", "Cancelled")
    return found.state, found.lost, found.unstarted, found.errors, failed


def check(state: State, ledger: Aggregator) -> None:
    """Raise where a task lives for one of the two only, or otherwise."""
    for name, task in state.tasks.items():
        row = ledger.row(name)
        if isinstance(row, Task) and not row.ended and row.id in ledger.tasks:
            begun = row.dispatched_at is not None or row.step is None
            known = 4 if task.is_gate else 5  # that a gate was refused, its end says
            assert life(row)[:known] == life(task.life)[:known], name
            assert not begun or row.attempt == task.life.attempt, name
        elif task.step:
            assert task.life.state == "waiting", name
        else:
            assert name in ledger.flows or name in ledger.schedules, name
    for name, row in ledger.tasks.items():
        expected = row.step is not None and row.state == "waiting" and _lives(row.flow, state)
        assert row.ended or name in state.tasks or name in state.merges or expected, name
    # An inner workflow that goes on after a resume may have to wait until its step has room.
    held = {name for name, flow in ledger.flows.items() if flow.woken and _lives(name, state)}
    live = {name for name, flow in ledger.flows.items() if not flow.ended} - held
    assert live <= {*state.flows, *state.merges, *state.tasks}
    assert state.flows.keys() <= live | held


def check_in_use(state: State, ledger: Aggregator) -> None:
    """Raise where a budget is in use for one of the two only, or otherwise.

    What a workflow bounds for itself is the router's alone.
    """
    router = {key: n for key, n in state.accounts.in_use.items() if n and key[:5] != "flow/"}
    assert {key: row.in_use for key, row in ledger.accounts.items() if row.in_use} == router


def check_budgets(state: State, ledger: Aggregator) -> None:
    """Raise where a budget is limited for one of the two only, or its units are not the same."""
    reserved: dict[tuple[str, str], float] = {}
    for need, count in state.accounts._held.items():
        for key in need.keys:
            for unit, amount in need.units:
                there = reserved.get((key, unit), 0.0)
                reserved[key, unit] = there + amount * count
    told = {(key, u): n for key, row in ledger.accounts.items() for u, n in row.reserved.items()}
    assert told == pytest.approx({k: n for k, n in reserved.items() if n and k[0][:5] != "flow/"})
    said = (state.accounts.base, state.accounts.changed)
    rows = ledger.accounts.items()
    assert {key: row.base for key, row in rows if row.base is not None} == said[0]
    assert {key: row.changed for key, row in rows if row.changed is not None} == said[1]
    assert sum(row.exceeded for _, row in rows) == 0


def _lives(inside: str | None, state: State) -> bool:
    """Whether the workflow, or the one around it, goes on."""
    return (inside or "").partition(".")[0] in state.flows


@pytest.mark.parametrize("seed", [*range(24), 152, 157, 237])
def test_of_a_simulated_world_ledger_and_router_tell_the_same(seed: int) -> None:
    subjects, state = Subjects(), State()
    ledger = Aggregator(subjects)
    for stored in journal_of(seed):
        message = (stored.subject, stored.data)
        _, counted = apply(state, subjects, stored.seq, stored.at_ms, message)
        record = Record(stored.seq, stored.at_ms * 1_000_000, stored.subject, b"", stored.data)
        verdict = ledger.apply(record)
        assert verdict == "malformed" or (verdict == "accepted") == counted, stored
        check_in_use(state, ledger)
        if stored.seq % _EACH == 0:
            check_budgets(state, ledger)
        if not state.answers:
            check(state, ledger)
        if stored.seq % _SAVE_EVERY == 0:
            ledger.saved(ledger.changes())
