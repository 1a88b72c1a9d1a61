"""Builds a workflow: in Python, step by step, or from a YAML file. Both give one `FlowRun`.

    flow = Workflow("release-notes")
    plan = flow.step("plan", "docs.plan", {"root": flow.inputs["root"]})
    pages = flow.step("page", "docs.write", {"file": flow.item}, each=plan["files"], at_once=4)
    asked = flow.gate("ask", prompt="Publish these pages?", after=[pages])
    flow.step("book", "docs.join", {"pages": pages}, when=asked["approved"])

A step, an element of it (`plan["files"]`), the inputs and the item of a fan-out may stand anywhere
in a payload. Nothing runs here: the router runs the posted workflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import msgspec

from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput
from callboard_broker.graph import chart
from callboard_broker.references import INPUTS, ITEM
from callboard_broker.selections import Condition, Selection, plain
from callboard_broker.wire import (
    FlowRun,
    Needs,
    Retry,
    Step,
    Timeouts,
    Undo,
    decode_flow_run,
    encode,
)
from callboard_broker.workflow_file import read_workflow

__all__ = ["Condition", "Selection", "StepOptions", "Workflow"]


class StepOptions(TypedDict, total=False):
    """Keywords of `Workflow.step`, `sub`, `gate` and `signal`; a record may be given as a dict.

    join: which of the steps before must succeed, counted by elements: `all`, `any`, a number of
    them, or `best_effort`, which waits for the end of all. when: a condition, e.g.
    `plan["ok"].equals(True)`; where it does not hold, the step is skipped, and what needs it.
    at_once: elements that may run at the same time (256 workflows of a `sub`, if it is left out).
    retry, timeouts, needs, budgets, units: as in `board.submit`. compensate: (capability, payload)
    of what undoes the step if the workflow fails later. priority: 0 (last) to 9 (first). timeout:
    seconds that a handler, or the workflow inside the step, may run.
    """

    join: Literal["all", "any", "best_effort"] | int
    when: Condition | Selection
    at_once: int | None
    retry: Retry | Mapping[str, Any] | None
    timeouts: Timeouts | Mapping[str, Any] | None
    needs: Needs | Mapping[str, Any] | None
    budgets: Sequence[str]
    units: Mapping[str, float]
    compensate: tuple[str, Any] | Undo | None
    priority: int
    timeout: float | None


class Workflow:
    """A DAG of steps with data on its edges.

    inputs: what `flow.inputs[...]` refers to. timeout: seconds until it expires as a whole.
    at_once: tasks of it that may run at the same time.
    """

    def __init__(
        self,
        name: str,
        *,
        inputs: dict[str, Any] | None = None,
        timeout: float | None = None,
        at_once: int | None = None,
    ) -> None:
        self.name = name
        self.inputs = Selection(INPUTS)
        self.item = Selection(ITEM)
        self.defaults = dict(inputs or {})
        self.timeout = timeout
        self.at_once = at_once
        self._steps: list[Step] = []
        self._output: bytes | None = None

    def step(
        self,
        name: str,
        capability: str,
        payload: Any = None,
        *,
        each: Selection | None = None,
        after: Sequence[Selection] = (),
        **options: Unpack[StepOptions],
    ) -> Selection:
        """Add a step and return its result, to be used in later payloads and conditions.

        each: run it once per element of this list; its result is then the list of results.
        after: further steps that come before. options: see `StepOptions`. Raises `BadInput`.
        """
        return self._add(name, {"capability": capability}, payload, each, after, options)

    def sub(
        self,
        name: str,
        workflow: Workflow,
        payload: Any = None,
        *,
        each: Selection | None = None,
        after: Sequence[Selection] = (),
        **options: Unpack[StepOptions],
    ) -> Selection:
        """Add a step that is a workflow of its own; payload: its inputs. Its output is the result.

        A dict of inputs is laid over those that `workflow` has. Raises `BadInput`.
        """
        if payload is None or isinstance(payload, dict):
            payload = {**workflow.defaults, **(payload or {})}
        inside: dict[str, Any] = {"steps": workflow._steps}
        if workflow._output is not None:
            inside["output"] = msgspec.Raw(workflow._output)
        if workflow.at_once is not None:
            inside["at_once"] = workflow.at_once
        if workflow.timeout is not None:
            options.setdefault("timeout", workflow.timeout)
        return self._add(name, {"flow": inside}, payload, each, after, options)

    def gate(
        self,
        name: str,
        *,
        prompt: str = "",
        each: Selection | None = None,
        after: Sequence[Selection] = (),
        **options: Unpack[StepOptions],
    ) -> Selection:
        """Add a step that waits for a person: `callboard approve`. prompt: what they are asked.

        Its result is `{"approved": true, "by": ..., "reason": ...}`; a refusal fails it.
        """
        return self._add(name, {"gate": {"prompt": prompt}}, None, each, after, options)

    def signal(
        self,
        name: str,
        signal: str | None = None,
        *,
        prompt: str = "",
        each: Selection | None = None,
        after: Sequence[Selection] = (),
        **options: Unpack[StepOptions],
    ) -> Selection:
        """Add a step that waits for a signal (of the step's name, if no other is given).

        Its result is the signal's value. A signal that comes early is kept.
        """
        gate = {"kind": "signal", "signal": signal or name, "prompt": prompt}
        return self._add(name, {"gate": gate}, None, each, after, options)

    def returns(self, output: Any) -> None:
        """Say what the workflow's result is; else, the results of the last steps by name."""
        self._output = encode_payload(plain(output), field="output")

    def spec(self, inputs: dict[str, Any] | None = None) -> FlowRun:
        """The workflow as it is posted. Raises `BadInput` that names what can never run."""
        given = {**self.defaults, **(inputs or {})}
        document: dict[str, Any] = {
            "name": self.name,
            "steps": self._steps,
            "inputs": msgspec.Raw(encode_payload(given, field="inputs")),
        }
        if self._output is not None:
            document["output"] = msgspec.Raw(self._output)
        if self.timeout is not None:
            document["timeout"] = self.timeout
        if self.at_once is not None:
            document["at_once"] = self.at_once
        run = decode_flow_run(encode(document))
        chart(run)
        return run

    @classmethod
    def load(cls, path: Path | str) -> Workflow:
        """Read a YAML file. Raises `BadInput` that names the file's offending field."""
        run = read_workflow(Path(path))
        inputs: dict[str, Any] = msgspec.json.decode(run.inputs)
        flow = cls(run.name, inputs=inputs, timeout=run.timeout, at_once=run.at_once)
        flow._steps = list(run.steps)
        flow._output = bytes(run.output) if isinstance(run.output, msgspec.Raw) else None
        return flow

    def _add(
        self,
        name: str,
        kind: dict[str, Any],
        payload: Any,
        each: Selection | None,
        after: Sequence[Selection],
        options: StepOptions,
    ) -> Selection:
        if unknown := sorted(options.keys() - StepOptions.__optional_keys__):
            known = ", ".join(sorted(StepOptions.__optional_keys__))
            raise BadInput(f"{name}.{unknown[0]}", f"there is no such option; there are {known}")
        said: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        document = {"id": name, **kind, **said, "after": [found.source for found in after]}
        document["payload"] = _raw(payload, f"{name}.payload")
        if each is not None:
            document["each"] = each.plain()
        if "when" in said:
            document["when"] = _raw(said["when"], f"{name}.when")
        undo = said.get("compensate")
        if isinstance(undo, tuple):
            what = _raw(undo[1], f"{name}.compensate.payload")
            document["compensate"] = {"capability": undo[0], "payload": what}
        try:
            self._steps.append(msgspec.json.decode(encode(document), type=Step))
        except msgspec.ValidationError as error:
            text, _, place = str(error).partition(" - at `")
            field = place.rstrip("`").removeprefix("$").lstrip(".")
            raise BadInput(f"{name}.{field}" if field else name, text) from error
        return Selection(name)


def _raw(value: Any, field: str) -> msgspec.Raw:
    return msgspec.Raw(encode_payload(plain(value), field=field))
