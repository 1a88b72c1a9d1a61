"""Makes the tracker's rows of what a projector writes: a pure function of a batch.

A task, a step and a workflow is a row; elements of a fan-out are counted in their step's row. Each
event that counts is an activity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from callboard_broker.wire import Answered, Command, Entered, FlowRun, Post
from callboard_integrations.cerebral.activities import Activities, step_name
from callboard_integrations.cerebral.describing import (
    NOTHING,
    Description,
    describe_element,
    describe_flow,
    describe_post,
)
from callboard_integrations.cerebral.documents import Writer, is_pulled
from callboard_integrations.cerebral.names import Names
from callboard_ledger.projection.batch import Folded, Item
from callboard_ledger.projection.documents import without_nul
from callboard_ledger.rows import Changes, Flow

__all__ = ["Mirror"]

_encoder = msgspec.json.Encoder()


class Mirror:
    """What a projector writes beside its own rows; see `Beside`."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __call__(self, stream: str, folded: Sequence[Folded], changes: Changes) -> Iterator[Item]:
        """The rows first, then the activities."""
        writer = Writer(
            names=self._names, stream=stream, position=changes.position, at_ms=changes.at_ms
        )
        for document in _documents(writer, _Heard(folded, changes), changes):
            body = without_nul(_encoder.encode(document))
            yield Item("cerebral", 0, document["task_id"], body)
        activities = Activities(self._names, stream, changes)
        for one in folded:
            if one.verdict != "accepted":
                continue
            activity = activities.of(one.record, one.reading)
            if activity is not None:
                body = without_nul(_encoder.encode(activity))
                yield Item("cerebral_activity", one.record.seq, activity["activity_id"], body)


class _Heard:
    """What the events of a batch say of rows: what each is called, and when they were last about it
    (`own`), or about something inside of it too (`times`)."""

    def __init__(self, folded: Sequence[Folded], changes: Changes) -> None:
        self.own: dict[str, int] = {}
        self.times: dict[str, int] = {}
        self.said: dict[str, Description] = {}
        targets = {command.id: command.target for command in changes.commands}
        for one in folded:
            if one.verdict not in ("accepted", "malformed"):
                continue
            event, resource = one.reading.event, one.reading.resource
            if isinstance(event, Answered) and event.error is None:
                resource = targets.get(resource, "")
            elif isinstance(event, Answered | Command):
                continue  # what is asked for is done when that is answered
            if resource:
                self._touch(resource, one.record.at_ns // 1_000_000)
            if isinstance(event, Post):
                self.said[resource] = describe_post(event)
            elif isinstance(event, FlowRun):
                self.said[resource] = describe_flow(event)
            elif isinstance(event, Entered):
                self.said[resource] = describe_element(event)

    def _touch(self, resource: str, at_ms: int) -> None:
        """It, its step, and the workflows around it."""
        self.own[resource] = max(at_ms, self.own.get(resource, 0))
        name: str | None = resource
        while name is not None:
            step = step_name(name)
            for touched in (name, step or name):
                self.times[touched] = max(at_ms, self.times.get(touched, 0))
            name = step and step.rpartition(".")[0]

    def steps(self, flow: Flow) -> dict[str, int]:
        """When each step of a workflow was last spoken of: what is said of the workflow itself is
        said of all. The others may stand differently too, because of what comes before them."""
        whole = self.own.get(flow.id, 0)
        times = {name: self.times.get(f"{flow.id}.{name}", 0) for name in flow.steps}
        return {name: max(whole, at_ms) for name, at_ms in times.items()}


def _documents(writer: Writer, heard: _Heard, changes: Changes) -> Iterator[dict[str, Any]]:
    gone = {merge.seq for merge in changes.merges}
    for task in changes.tasks:
        if task.seq not in gone and (task.step is None or task.scheduled):
            at_ms = heard.times.get(task.id, changes.at_ms)
            yield writer.task(task, heard.said.get(task.id, NOTHING), at_ms)
    taken: set[str] = set()
    for flow in sorted(changes.flows, key=lambda flow: flow.seq):
        if flow.seq in gone:
            continue
        said = heard.said.get(flow.id, NOTHING)
        if not is_pulled(flow):
            yield writer.flow(flow, said, heard.times.get(flow.id, changes.at_ms))
        for document in writer.steps(flow, said, heard.steps(flow)):
            if document["task_id"] not in taken:  # the first post of a pulled row counts
                taken.add(document["task_id"])
                yield document
    for merge in changes.merges:
        yield writer.repeated(merge)
