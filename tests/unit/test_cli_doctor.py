"""`callboard doctor` says what this machine offers, and ends with 1 if that is too little."""

from __future__ import annotations

import json

import pytest

from callboard.cli import main
from callboard_agents.sandbox import LAYERS, available


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().out


def test_every_layer_is_listed_with_what_it_stops(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = told(capsys)
    assert code == 0
    assert all(layer in out for layer in LAYERS)
    assert "nats server" in out


def test_a_required_layer_that_is_missing_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLBOARD_ISOLATION__REQUIRE", '["landlock"]')
    monkeypatch.setattr(
        "callboard.cli.doctor.available", lambda: available() | {"landlock": "the kernel has none"}
    )
    code, out = told(capsys, "--json")
    found = json.loads(out)
    assert code == 1
    assert found["missing"] == ["landlock"]
    landlock = next(each for each in found["layers"] if each["layer"] == "landlock")
    assert (landlock["active"], landlock["required"]) == (False, True)
