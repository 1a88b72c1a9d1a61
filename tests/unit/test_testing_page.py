"""The examples of `docs/testing.md` run as they stand there."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
FILES = dict(
    re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
IN_MEMORY = [name for name in FILES if name.startswith("test_") and "live" not in name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, where Python finds them."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("payments", None)


def load(file: Path) -> ModuleType:
    """The module in `file`."""
    spec = importlib.util.spec_from_file_location(f"page_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", IN_MEMORY)
def test_the_examples_in_memory_run(folder: Path, name: str):
    tests = [call for name, call in vars(load(folder / name)).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_the_page_has_all_kinds_of_examples():
    assert sorted(FILES) == [
        "payments.py",
        "test_one_attempt.py",
        "test_payments.py",
        "test_payments_live.py",
        "test_payments_twice.py",
    ]
