"""A workflow as a person writes it in YAML: steps by name, references as `plan.files`.

name: release-notes
steps:
  plan: {capability: docs.plan, payload: {root: {from: inputs, path: root}}}
  page: {capability: docs.write, each: plan.files, at_once: 4, payload: {file: {from: item}}}
  ask:  {gate: "Publish these pages?", after: [page]}
  book: {capability: docs.join, payload: {pages: {from: page}}, when: ask.approved}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput
from callboard_broker.wire import FlowRun, decode_flow_run
from callboard_config.document import read_document
from callboard_config.errors import SettingsError

__all__ = ["read_workflow"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _StepFile(_Strict):
    """One step: `capability`, or `gate` (what is asked), or `signal` (its name), or `flow`.

    each, when: a reference such as `plan.files`, or the object of the wire's `Step`.
    """

    capability: str | None = None
    payload: Any = None
    after: list[str] = Field(default_factory=list)
    each: str | dict[str, Any] | None = None
    at_once: int | None = None
    join: Literal["all", "any", "best_effort"] | int | None = None
    when: str | dict[str, Any] | None = None
    gate: str | dict[str, Any] | None = None
    signal: str | None = None
    prompt: str | None = None
    flow: _FlowFile | None = None
    compensate: dict[str, Any] | None = None
    priority: int | None = None
    timeout: float | None = None
    timeouts: dict[str, Any] | None = None
    retry: dict[str, Any] | None = None
    needs: dict[str, Any] | None = None
    budgets: list[str] | None = None
    units: dict[str, float] | None = None


class _FlowFile(_Strict):
    """The steps of a workflow. output: its result; else the results of its last steps by name."""

    steps: dict[str, _StepFile]
    output: Any = None
    at_once: int | None = None


class _WorkflowFile(_FlowFile):
    name: str
    inputs: dict[str, Any] = Field(default_factory=dict)
    timeout: float | None = None


def read_workflow(path: Path) -> FlowRun:
    """The workflow of a file. Raises `BadInput` that names the file's offending field."""
    source = str(path)
    try:
        found = _WorkflowFile.model_validate(read_document(path, source))
    except SettingsError as error:
        raise BadInput(source, error.reason) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(place or "workflow", f"{first['msg']} (in {source})") from error
    document = _flow(found) | {"name": found.name, "inputs": found.inputs}
    if found.timeout is not None:
        document["timeout"] = found.timeout
    try:
        return decode_flow_run(encode_payload(document, field="workflow"))
    except BadInput as error:
        raise BadInput(_by_name(error.field, found), f"{error.reason} (in {source})") from error


def _flow(found: _FlowFile) -> dict[str, Any]:
    document: dict[str, Any] = {"steps": [_step(name, step) for name, step in found.steps.items()]}
    if found.output is not None:
        document["output"] = found.output
    if found.at_once is not None:
        document["at_once"] = found.at_once
    return document


def _step(name: str, found: _StepFile) -> dict[str, Any]:
    said = found.model_dump(exclude={"flow", "gate", "signal", "prompt"}, exclude_none=True)
    document: dict[str, Any] = {"id": name} | said
    for field in ("each", "when"):
        if isinstance(document.get(field), str):
            document[field] = _reference(document[field])
    if found.flow is not None:
        document["flow"] = _flow(found.flow)
    if found.gate is not None:
        document["gate"] = {"prompt": found.gate} if isinstance(found.gate, str) else found.gate
    elif found.signal is not None:
        document["gate"] = {"kind": "signal", "signal": found.signal}
    if found.prompt is not None:
        document["gate"] = {"prompt": found.prompt} | document.get("gate", {})
    return document


def _reference(text: str) -> dict[str, str]:
    source, _, path = text.partition(".")
    return {"from": source, "path": path} if path else {"from": source}


def _by_name(field: str, found: _FlowFile) -> str:
    """`steps[2].retry` as the file has it: `steps.build.retry`."""
    match = re.match(r"(?:flow\.)?steps\[(\d+)\]\.?", field)
    if match is None:
        return field
    name, step = list(found.steps.items())[int(match[1])]
    rest = field[match.end() :]
    if step.flow is not None and rest.startswith("flow.steps["):
        rest = f"flow.{_by_name(rest, step.flow)}"
    return f"steps.{name}.{rest}".rstrip(".")
