"""The settings of isolation: what a tenant demands, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard_config import SettingsError, TenantIsolation, load_settings


@pytest.fixture(autouse=True)
def _away_from_the_settings_of_whoever_runs_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLBOARD_CONFIG", raising=False)


def test_nothing_is_demanded_unless_somebody_says_so():
    isolation = load_settings().isolation
    assert (isolation.least, isolation.require, isolation.network) == ("inline", (), False)
    assert isolation.tenants == {}
    assert "/usr" in isolation.read


def test_a_tenant_demands_layers_in_a_file(tmp_path: Path):
    path = tmp_path / "resource_limits.yaml"
    path.write_text(
        "isolation: {tenants: {acme: {isolation: process, require: [landlock, seccomp]}}}"
    )
    settings = load_settings(files=[path])
    assert settings.isolation.tenants == {
        "acme": TenantIsolation(isolation="process", require=("landlock", "seccomp"))
    }
    assert settings.origin("isolation.tenants.acme.require") == f"file {path}"


@pytest.mark.parametrize(
    ("isolation", "key"),
    [
        ({"least": "thread"}, "isolation.least"),
        ({"require": ["selinux"]}, "isolation.require"),
        ({"read": ["usr"]}, "isolation.read"),
        ({"tenants": {"acme": {"isolation": "thread"}}}, "isolation.tenants.acme.isolation"),
        ({"tenants": {"Acme": {}}}, "isolation.tenants.Acme"),
        ({"tenants": {"acme": {"requires": []}}}, "isolation.tenants.acme.requires"),
    ],
)
def test_what_cannot_be_demanded_is_refused_by_name(isolation: dict[str, object], key: str):
    with pytest.raises(SettingsError) as refused:
        load_settings(overrides={"isolation": isolation})
    assert refused.value.key.startswith(key)


def test_the_limits_of_a_child_process_are_within_bounds():
    agents = load_settings().agents
    assert (agents.memory_mb, agents.processes, agents.cpu_seconds) == (1024, 1, None)
    for key in ("memory_mb", "disk_mb", "output_mb", "files", "processes", "tasks_per_child"):
        with pytest.raises(SettingsError) as refused:
            load_settings(overrides={f"agents.{key}": 0})
        assert refused.value.key == f"agents.{key}"
