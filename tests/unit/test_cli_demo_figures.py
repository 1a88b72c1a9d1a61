"""The demo's figures come from the journal: here from one that was written by hand."""

from __future__ import annotations

import pytest
from msgspec import Raw

from callboard.demo.figures import JournalFigures, most_at_once, percentile
from callboard.demo.progress import Progress
from callboard_broker.errors import BadInput
from callboard_broker.handle import Update
from callboard_broker.record import Record
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Budget,
    Dispatch,
    Event,
    Expanded,
    Failure,
    FlowRun,
    Limit,
    Lost,
    Outcome,
    encode,
)
from callboard_broker.workflow import Workflow

SUBJECTS = Subjects()


class Journal:
    """Records at given milliseconds."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, at_ms: float, subject: str, message: Event | FlowRun) -> None:
        record = Record(len(self.records) + 1, int(at_ms * 1e6), subject, b"", encode(message))
        self.records.append(record)

    def event(self, at_ms: float, kind: str, event: Event) -> None:
        self.add(at_ms, SUBJECTS.run("demo", kind, 1), event)

    def dispatch(self, at_ms: float, task: str, attempt: int = 1) -> None:
        event = Dispatch(task, attempt, f"s{attempt}", 1, 1, 99_999, 5.0)
        self.add(at_ms, SUBJECTS.dispatch("demo", "shared", "x"), event)

    def outcome(self, at_ms: float, task: str, ran: tuple[int, int], attempt: int = 1) -> None:
        event = Outcome(task, attempt, f"s{attempt}", "h", *ran, result=Raw(b"1"))
        self.event(at_ms, "outcome", event)


@pytest.fixture
def journal() -> Journal:
    """A plan, three items of which two fit into the budget at once, and a join."""
    flow = Workflow("f")
    plan = flow.step("plan", "x")
    parts = flow.step("part", "x", flow.item, each=plan["files"])
    flow.step("join", "x", {"parts": parts})
    journal = Journal()
    journal.add(1000, SUBJECTS.flow("demo", "run"), flow.spec())
    journal.event(1000, "budget", Budget(1, {"global": Limit(concurrency=2)}))
    journal.dispatch(1001, "1.plan.0")
    journal.outcome(1010, "1.plan.0", (1002, 1009))
    journal.event(1011, "expanded", Expanded("1", "part", 1, 3))
    journal.dispatch(1012, "1.part.0")
    journal.dispatch(1012, "1.part.1")
    journal.outcome(1030, "1.part.0", (1014, 1028))
    journal.dispatch(1031, "1.part.2")  # waited for a token, not for the plan
    journal.event(1040, "lost", Lost("1.part.1", 1, 1, "host gone"))
    journal.dispatch(1041, "1.part.1", attempt=2)
    journal.outcome(1050, "1.part.2", (1034, 1049))
    journal.outcome(1055, "1.part.1", (1019, 1021))  # of the attempt that was lost: void
    journal.outcome(1060, "1.part.1", (1043, 1059), attempt=2)
    journal.dispatch(1061, "1.join.0")
    journal.outcome(1070, "1.join.0", (1065, 1069))
    return journal


def test_the_figures_are_those_of_the_journal(journal: Journal):
    figures = JournalFigures(SUBJECTS, "1")
    for record in journal.records:
        figures.take(record)
    run = figures.figures(seconds=1.0, audit_verified=True, processes=["h 1"])
    assert (run.tasks, run.attempts_lost) == (5, 1)
    assert (run.budget_high_water, run.budget_limit) == (2, 2)
    assert run.parallelism == 2


def test_a_hand_off_begins_where_the_work_became_possible(journal: Journal):
    figures = JournalFigures(SUBJECTS, "1")
    for record in journal.records:
        figures.take(record)
    totals = {each.task: each.total for each in figures.handoffs}
    assert totals == pytest.approx(
        {
            "1.part.0": 4,  # after the plan's outcome at 1010
            "1.part.2": 4,  # after the token that came back at 1030
            "1.join.0": 5,  # after the last item's outcome at 1060
        }
    )


def test_a_journal_without_the_workflow_has_no_figures():
    with pytest.raises(BadInput, match="no workflow 7"):
        JournalFigures(SUBJECTS, "7").figures(seconds=1, audit_verified=None, processes=[])


def test_spans_that_only_touch_do_not_overlap():
    assert most_at_once([(0, 5), (5, 9), (3, 6), (7, 7)]) == 2
    assert most_at_once([]) == 0


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile([], 0.5) == 0
    assert percentile([1.0], 0.99) == 1
    assert percentile([float(n) for n in range(100)], 0.99) == 99


def test_progress_counts_what_the_updates_say():
    progress = Progress()
    progress.hear(Update("9.plan.0", "running", host="h"))
    progress.hear(Update("9.plan.0", "succeeded", host="h"))
    progress.hear(Update("9.plan.0", "running", host="h"))  # news that came too late
    assert (progress.done, progress.running, progress.total) == (1, 0, None)
    for name, step in progress.steps.items():
        if step.total is None:
            progress.hear(Update(f"9.{name}", items=2))
    assert progress.total == 2 + 6 * 2
    progress.hear(Update("9.secrets.1", "running", host="h"))
    assert progress.hosts() == {"h": 1}
    progress.hear(Update("9.secrets.1", "waiting", error=Failure("Lost", "gone"), host="h"))
    assert (progress.lost, progress.running) == (1, 0)
    progress.hear(Update("9", "succeeded"))
    assert progress.done == 1
