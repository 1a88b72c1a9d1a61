"""A payload is read into what the handler is annotated with, or refused by the field's name."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest

from callboard_agents.payload import reader
from callboard_broker.errors import BadInput


class FileStruct(msgspec.Struct):
    path: str
    size: Annotated[int, msgspec.Meta(ge=0)] = 0


class SourceStruct(msgspec.Struct, forbid_unknown_fields=True):
    files: list[FileStruct]


@dataclass
class FileData:
    path: str
    size: int = 0


@dataclass
class SourceData:
    files: list[FileData]


class FileModel(pydantic.BaseModel):
    path: str
    size: int = pydantic.Field(default=0, ge=0)


class SourceModel(pydantic.BaseModel):
    files: list[FileModel]
    at: date | None = None


@dataclass
class Mixed:
    name: str
    model: SourceModel


class Tree(msgspec.Struct):
    leaves: list[Tree] = []


class Level(enum.Enum):
    LOW = "low"


class Options(TypedDict):
    depth: int


class Connection:
    """Not data."""


@pytest.mark.parametrize(
    ("annotation", "payload", "value"),
    [
        (Any, b'{"a": [1, null]}', {"a": [1, None]}),
        (object, b'{"a": [1, null]}', {"a": [1, None]}),
        (list[object], b'[1, "a"]', [1, "a"]),
        (dict, b'{"a": 1}', {"a": 1}),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (list[str], b'["a"]', ["a"]),
        (str, b'"a"', "a"),
        (int, b"3", 3),
        (float, b"3", 3.0),
        (bool, b"true", True),
        (None, b"null", None),
        (str | None, b"null", None),
        (Level, b'"low"', Level.LOW),
        (Options, b'{"depth": 2}', {"depth": 2}),
        (date, b'"2026-01-02"', date(2026, 1, 2)),
        (SourceStruct, b'{"files": [{"path": "a"}]}', SourceStruct([FileStruct("a")])),
        (SourceData, b'{"files": [{"path": "a"}]}', SourceData([FileData("a")])),
        (Tree, b'{"leaves": [{}]}', Tree([Tree()])),
        (
            SourceModel,
            b'{"files": [{"path": "a"}], "at": "2026-01-02"}',
            SourceModel(files=[FileModel(path="a")], at=date(2026, 1, 2)),
        ),
        (list[FileModel], b'[{"path": "a"}]', [FileModel(path="a")]),
        (FileModel | None, b"null", None),
        (
            Mixed,
            b'{"name": "m", "model": {"files": [], "at": "2026-01-02"}}',
            Mixed("m", SourceModel(files=[], at=date(2026, 1, 2))),
        ),
    ],
)
def test_a_payload_becomes_what_the_annotation_says(annotation: Any, payload: bytes, value: Any):
    assert reader(annotation)(payload) == value
    assert reader(annotation)(msgspec.Raw(payload)) == value


@pytest.mark.parametrize(
    ("annotation", "payload", "field"),
    [
        (SourceStruct, b'{"files": [{"path": 3}]}', "files[0].path"),
        (SourceStruct, b'{"files": [{"path": "a", "size": -1}]}', "files[0].size"),
        (SourceStruct, b'{"files": [{"size": 1}]}', "files[0].path"),
        (SourceStruct, b"{}", "files"),
        (SourceStruct, b'{"files": [], "fiels": []}', "fiels"),
        (SourceData, b'{"files": [{"path": "a"}, {"path": 3}]}', "files[1].path"),
        (SourceData, b'{"files": [{}]}', "files[0].path"),
        (SourceModel, b'{"files": [{"path": 3}]}', "files[0].path"),
        (SourceModel, b'{"files": [{"path": "a", "size": "1"}]}', "files[0].size"),
        (SourceModel, b'{"files": [{}]}', "files[0].path"),
        (list[FileModel], b'[{"path": "a"}, {}]', "[1].path"),
        (Mixed, b'{"name": "m", "model": {"files": [{}]}}', "model.files[0].path"),
        (dict[str, int], b'{"a": "b"}', "[...]"),
        (int, b'"3"', "payload"),
        (str, b"null", "payload"),
        (SourceModel, b"[]", "payload"),
        (SourceModel, b"{", "payload"),
        (int, b"{", "payload"),
        (str, b'"\xff"', "payload"),
        (Any, b"[" * 100_000, "payload"),
        (SourceModel, b"[" * 100_000, "payload"),
        (dict, b"", "payload"),
    ],
)
def test_a_wrong_payload_names_the_field(annotation: Any, payload: bytes, field: str):
    with pytest.raises(BadInput) as refused:
        reader(annotation)(payload)
    assert refused.value.field == field
    assert len(str(refused.value)) < 700
    assert "\n" not in str(refused.value)


def test_a_type_that_no_payload_can_have_is_refused_at_once():
    for impossible in (Connection, list[Connection], dict[Connection, int]):
        with pytest.raises(BadInput, match="Connection"):
            reader(impossible)
