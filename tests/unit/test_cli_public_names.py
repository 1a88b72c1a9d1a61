"""`import callboard`: cheap, complete, and the same objects as in the packages behind it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import callboard
import callboard_agents
import callboard_broker.errors
from callboard_broker.workflow import Workflow


def test_every_public_name_is_there_and_sorted():
    assert list(callboard.__all__) == sorted(callboard.__all__)
    for name in callboard.__all__:
        assert getattr(callboard, name) is not None
    assert set(callboard.__all__) <= set(dir(callboard))


def test_the_names_are_those_of_the_packages_behind():
    assert callboard.agent is callboard_agents.agent
    assert callboard.Context is callboard_agents.Context
    assert callboard.Workflow is Workflow
    assert set(callboard_broker.errors.__all__) <= set(callboard.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = callboard.nonsense


def test_agents_and_clients_need_neither_the_command_nor_what_is_optional():
    code = (
        "import sys, callboard; [getattr(callboard, name) for name in callboard.__all__"
        " if callboard._ELSEWHERE.get(name) != callboard._PARALLEL];"
        "print(*sorted({'typer', 'rich', 'langgraph', 'supabase', 'sqlite3', 'callboard_router'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
