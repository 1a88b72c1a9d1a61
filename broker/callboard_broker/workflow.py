"""Builds a workflow: in Python, step by step, or from a YAML file. Both give one `FlowRun`.

    flow = Workflow("release-notes")
    plan = flow.step("plan", "docs.plan", {"root": flow.inputs["root"]})
    pages = flow.step("page", "docs.write", {"file": flow.item}, each=plan["files"])
    flow.step("book", "docs.join", {"pages": pages})

A step, an element of it (`plan["files"]`), the inputs and the item of a fan-out may stand anywhere
in a payload. Nothing runs here: the router runs the posted workflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput
from callboard_broker.graph import chart
from callboard_broker.references import INPUTS, ITEM
from callboard_broker.wire import FlowRun, Ref, Step
from callboard_config.document import read_document
from callboard_config.errors import SettingsError

__all__ = ["Selection", "Workflow"]


class Selection:
    """A value that will exist when the workflow runs; `[...]` selects inside it."""

    __slots__ = ("path", "source")

    def __init__(self, source: str, path: str = "") -> None:
        self.source = source
        self.path = path

    def __getitem__(self, part: str | int) -> Selection:
        return Selection(self.source, f"{self.path}.{part}" if self.path else str(part))

    def __repr__(self) -> str:
        return f"<{self.source}{'.' if self.path else ''}{self.path}>"

    def plain(self) -> dict[str, str]:
        """The reference as it stands in a payload."""
        return {"from": self.source, "path": self.path} if self.path else {"from": self.source}


class _StepFile(BaseModel):
    """A step as a person writes it in YAML."""

    model_config = ConfigDict(extra="forbid", strict=True)

    capability: str
    payload: Any = None
    after: list[str] = Field(default_factory=list)
    each: Any = None
    priority: int = 5
    timeout: float | None = None


class _WorkflowFile(BaseModel):
    """A workflow as a person writes it in YAML: steps by name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    inputs: dict[str, Any] = Field(default_factory=dict)
    steps: dict[str, _StepFile]
    output: Any = None


class Workflow:
    """A DAG of steps with data on its edges. inputs: what `flow.inputs[...]` refers to."""

    def __init__(self, name: str, *, inputs: dict[str, Any] | None = None) -> None:
        self.name = name
        self.inputs = Selection(INPUTS)
        self.item = Selection(ITEM)
        self.defaults = dict(inputs or {})
        self._steps: list[Step] = []
        self._output: bytes | None = None

    def step(
        self,
        name: str,
        capability: str,
        payload: Any = None,
        *,
        each: Selection | None = None,
        after: tuple[Selection, ...] | list[Selection] = (),
        priority: int = 5,
        timeout: float | None = None,
    ) -> Selection:
        """Add a step and return its result, to be used in later payloads.

        each: run it once per element of this list; its result is then the list of results.
        after: further steps that must have succeeded. timeout: seconds that a handler may run.
        """
        self._steps.append(
            Step(
                id=name,
                capability=capability,
                payload=msgspec.Raw(encode_payload(_plain(payload), field=f"{name}.payload")),
                after=[selection.source for selection in after],
                each=None if each is None else msgspec.convert(each.plain(), Ref),
                priority=priority,
                timeout=timeout,
            )
        )
        return Selection(name)

    def returns(self, output: Any) -> None:
        """Say what the workflow's result is; else, the results of the last steps by name."""
        self._output = encode_payload(_plain(output), field="output")

    def spec(self, inputs: dict[str, Any] | None = None) -> FlowRun:
        """The workflow as it is posted. Raises `BadInput` that names what can never run."""
        given = {**self.defaults, **(inputs or {})}
        output = msgspec.UNSET if self._output is None else msgspec.Raw(self._output)
        run = FlowRun(
            name=self.name,
            steps=self._steps,
            inputs=msgspec.Raw(encode_payload(given, field="inputs")),
            output=output,
        )
        try:
            run = msgspec.json.decode(msgspec.json.encode(run), type=FlowRun)
        except msgspec.ValidationError as error:
            raise BadInput("workflow", str(error)) from error
        chart(run)
        return run

    @classmethod
    def load(cls, path: Path | str) -> Workflow:
        """Read a YAML file. Raises `BadInput` that names the file's offending field."""
        source = str(path)
        try:
            found = _WorkflowFile.model_validate(read_document(Path(path), source))
        except SettingsError as error:
            raise BadInput(source, error.reason) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise BadInput(place or "workflow", f"{first['msg']} (in {source})") from error
        flow = cls(found.name, inputs=found.inputs)
        for name, step in found.steps.items():
            flow.step(
                name,
                step.capability,
                step.payload,
                each=_selected(step.each, f"steps.{name}.each"),
                after=[Selection(source) for source in step.after],
                priority=step.priority,
                timeout=step.timeout,
            )
        if found.output is not None:
            flow.returns(found.output)
        return flow


def _selected(each: Any, field: str) -> Selection | None:
    """`each: plan.files` or `each: {from: plan, path: files}`."""
    if each is None:
        return None
    if isinstance(each, str):
        source, _, path = each.partition(".")
        return Selection(source, path)
    try:
        ref = msgspec.convert(each, Ref)
    except msgspec.ValidationError as error:
        raise BadInput(field, f"must be like `plan.files`: {error}") from error
    return Selection(ref.source, ref.path)


def _plain(value: Any) -> Any:
    if isinstance(value, Selection):
        return value.plain()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
