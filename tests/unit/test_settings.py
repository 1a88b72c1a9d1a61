"""Settings: which source wins, what is refused and how, and where each value came from."""

from __future__ import annotations

import ast
import itertools
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

import callboard_config
from callboard_broker.errors import BadInput
from callboard_broker.subjects import check_tenant
from callboard_config import SettingsError, auto_concurrency, describe, load_settings, usable_cpus

PARALLEL, LIMITS = "parallel_execution_config.yaml", "resource_limits.yaml"
ROUTING = "agent_routing_rules.yaml"
LEASE = "lease.lease_seconds"


@pytest.fixture(autouse=True)
def _away_from_the_settings_of_whoever_runs_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CALLBOARD_")]:
        monkeypatch.delenv(name)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def written(folder: Path, text: str, name: str = PARALLEL) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def refused(
    files: Sequence[Path] = (),
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(files=files, overrides=overrides, environ=environ)
    return caught.value


def cases(*rows: str) -> list[tuple[str, str]]:
    """Give (left, each of the values on the right) of rows such as `port = 010 | true`."""
    pairs = [row.split(" = ", 1) for row in rows]
    return [(left, value.strip()) for left, values in pairs for value in values.split(" | ")]


def test_the_packaged_yaml_gives_every_setting_a_default():
    settings = load_settings()
    rows = {row.key: row for row in describe(settings)}
    assert {LEASE, "budgets.tenants", "agents.drain_seconds", "pools"} <= rows.keys()
    assert len(rows) == 105
    assert all(row.origin.startswith("default (") for row in rows.values())
    assert (settings.nats.url, settings.lease.lease_seconds) == (None, 20.0)
    assert settings.workflow.max_items == 10_000
    with pytest.raises(ValidationError):
        settings.lease.lost_limit = 9


def test_no_model_repeats_a_default_and_every_field_says_what_it_is():
    modules = Path(callboard_config.__file__).parent.glob("*.py")
    trees = [ast.walk(ast.parse(module.read_text(encoding="utf-8"))) for module in modules]
    for model in itertools.chain(*trees):
        if isinstance(model, ast.ClassDef) and any("Section" in ast.dump(b) for b in model.bases):
            for field, doc in itertools.pairwise([*model.body, None]):
                if isinstance(field, ast.AnnAssign):
                    where = f"{model.name}.{ast.unparse(field.target)}"
                    section = ast.unparse(field.annotation).endswith("Settings")
                    assert field.value is None, f"{where} has a default in Python"
                    assert section or isinstance(doc, ast.Expr), f"{where} has no docstring"


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path):
    files = [written(tmp_path, "lease: {lease_seconds: 30}")]
    environ = {"CALLBOARD_LEASE__LEASE_SECONDS": "40"}
    found = [
        load_settings(),
        load_settings(files=files),
        load_settings(files=files, environ=environ),
        load_settings(files=files, environ=environ, overrides={LEASE: 50}),
    ]
    assert [(settings.lease.lease_seconds, settings.origin(LEASE)) for settings in found] == [
        (20.0, f"default ({PARALLEL})"),
        (30.0, f"file {files[0]}"),
        (40.0, "environment CALLBOARD_LEASE__LEASE_SECONDS"),
        (50.0, "command line"),
    ]
    again = pickle.loads(pickle.dumps(found[3]))  # noqa: S301  our own bytes
    assert (again, again.origin(LEASE)) == (found[3], "command line")


def test_sources_are_merged_value_by_value_and_the_later_file_wins(tmp_path: Path):
    first = written(tmp_path / "a", "lease: {lost_limit: 5, start_seconds: 6}\njournal:\n")
    second = written(tmp_path, "lease: {lost_limit: 7}")
    third = written(tmp_path, "budgets: {tenants: {acme: {concurrency: 3}}}", LIMITS)
    variable = "CALLBOARD_BUDGETS__TENANTS__GLOBEX__CONCURRENCY"
    settings = load_settings(files=[first, second, third], environ={variable: "4"})
    rows = {row.key: (row.value, row.origin) for row in describe(settings)}
    assert rows["lease.lost_limit"] == (7, f"file {second}")
    assert rows["lease.start_seconds"] == (6.0, f"file {first}")
    assert rows["journal.replicas"] == (1, f"default ({PARALLEL})")
    assert rows["budgets.tenants.acme.concurrency"] == (3, f"file {third}")
    assert rows["budgets.tenants.globex.concurrency"] == (4, f"environment {variable}")


def test_the_config_directory_is_read_unless_callboard_config_names_another(tmp_path: Path):
    path = written(Path("config"), "pools: {gpu: [acme, no, '007']}", ROUTING).absolute()
    written(Path("config"), "a: 1", "unrelated.yaml")
    settings = load_settings()
    assert settings.pools == {"gpu": ("acme", "no", "007")}
    assert settings.origin("pools.gpu") == f"file {path}"
    file = written(tmp_path, "agents: {slots_thread: 2}", LIMITS)
    for named in (file, file.parent):
        settings = load_settings(environ={"CALLBOARD_CONFIG": str(named)})
        assert (settings.pools, settings.agents.slots_thread) == ({}, 2)


def test_text_is_read_by_the_type_of_its_setting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    environ = {
        "CALLBOARD_BOARD__PREFIX": "007",
        "CALLBOARD_POOLS": '{"gpu": ["acme"]}',
        "CALLBOARD_LEDGER__STORE": "~/yes # no",
        "CALLBOARD_AGENTS__TIMEOUT_SECONDS": "0.5",
        "CALLBOARD_NATS_URL": "nats://n:4222",
    }
    settings = load_settings(environ=environ, overrides={"nats.embedded.port": "5000"})
    assert (settings.board.prefix, settings.pools) == ("007", {"gpu": ("acme",)})
    assert settings.ledger.store == Path("/home/someone/yes # no")
    assert (settings.agents.timeout_seconds, settings.nats.embedded.port) == (0.5, 5000)
    assert settings.origin("nats.url") == "environment CALLBOARD_NATS_URL"
    assert load_settings(environ=environ, overrides={"nats.url": "null"}).nats.url is None
    not_given = load_settings(environ=environ, overrides={"nats.url": None})
    assert not_given.nats.url == "nats://n:4222"


def test_variables_that_are_no_settings_are_ignored():
    names = ["TEST_DATA", "REQUIRE", "SLOW", "TEST_NATS_URL"]
    kubernetes = ["SERVICE_HOST", "SERVICE_PORT_HTTP", "NATS_PORT_4222_TCP_ADDR"]
    environ = {f"CALLBOARD_{name}": "1" for name in names + kubernetes}
    environ |= {"CALLBOARD_NATS_PORT": "tcp://10.0.0.1:4222", "CALLBOARD_NATS_URL": "", "PATH": "/"}
    assert all(row.origin.startswith("default") for row in describe(load_settings(environ=environ)))
    assert refused(environ={"CALLBOARD_NATS_PORT": "4222"}).key == "CALLBOARD_NATS_PORT"


URLS = cases(
    "nats://h:4222 = nats://h:4222",
    "nats://me:pass@h = nats://me:***@h",
    "tls://token@h = tls://***@h",
    "nats://a:secret@h:1,nats://b:secret@i:2 = nats://a:***@h:1,nats://b:***@i:2",
)


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_a_password_is_masked_wherever_settings_are_shown(url: str, shown: str):
    settings = load_settings(overrides={"nats.url": url})
    assert settings.nats.url == url
    assert {row.key: row.value for row in describe(settings)}["nats.url"] == shown
    assert url not in repr(settings)


SECRETS = "http://u:secret@h nats://u:se,cret@h nats://u:se/cret@h nats://u:secret@ secret"
SECRETS += " nats://u:secret@h:port nats://u:secret@h/x nats://u:secret@h?x nats://[secret"


@pytest.mark.parametrize("url", [*SECRETS.split(), "nats://u:secret @h", "nats://u:secret@h,"])
def test_a_wrong_address_is_refused_without_showing_it(url: str):
    error = refused(environ={"CALLBOARD_NATS_URL": url})
    assert error.key == "nats.url"
    assert "secret" not in str(error)
    assert "cret" not in str(error)


NAMES = cases(
    "lease: {lease_second: 5} = did you mean lease.lease_seconds?",
    "leases: {} = did you mean lease?",
    "qqq: 1 = callboard config show",
    f"budgets: {{}} = {LIMITS}",
    "nats.embedded.port: 5 = `nats: {embedded: {port: ...}}`",
    "lease: 5 = write them below it",
)


@pytest.mark.parametrize(("text", "told"), NAMES)
def test_a_wrong_name_in_a_file_is_refused_with_file_path_and_what_to_do(
    text: str, told: str, tmp_path: Path
):
    error = refused([file := written(tmp_path, text)])
    assert error.source == f"file {file}"
    assert str(error).startswith(f"{error.key} (file {file})")
    assert text.startswith(error.key[:3])
    assert told in str(error)


def test_a_wrong_name_elsewhere_is_refused_with_the_nearest_one():
    error = refused(environ={"CALLBOARD_LEASE_LEASE_SECONDS": "5"})
    assert error.key == "CALLBOARD_LEASE_LEASE_SECONDS"
    assert "did you mean CALLBOARD_LEASE__LEASE_SECONDS?" in str(error)
    error = refused(overrides={"journal.replica": 5})
    assert "(command line): there is no such setting; did you mean journal.replicas?" in str(error)
    both = {"CALLBOARD_NATS_URL": "nats://a", "CALLBOARD_NATS__URL": "nats://b"}
    assert "unset one of them" in str(refused(environ=both))
    with pytest.raises(SettingsError, match=r"did you mean lease\.lease_seconds"):
        load_settings().origin("lease.leaseseconds")


VALUES = cases(
    "nats.embedded.port = 12:30:45 | 010 | '4222' | 4222.0 | 0x10 | true | 65536 | null",
    "nats.embedded.sync = no | off",
    "nats.embedded.host = a b",
    "nats.embedded.store = ''",
    'board.prefix = 123 | a.b | A | "cb\\n"',
    "lease.lease_seconds = 1:30 | .inf | 1e999 | 2026-01-01 | [20] | {x: 1} | 2",
    "lease.beat_seconds = 0 | -1 | 3",
    "payload.blob_bytes = 255 | 1_000_001",
)


@pytest.mark.parametrize(("key", "value"), VALUES)
def test_a_wrong_value_is_refused_by_name_and_source(key: str, value: str, tmp_path: Path):
    *sections, name = key.split(".")
    text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    file = written(tmp_path, f"{text}{'  ' * len(sections)}{name}: {value}\n")
    error = refused([file])
    assert (error.key, error.source) == (key, f"file {file}")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert (str(again), again.key, again.source) == (str(error), error.key, error.source)


OVERRIDES = cases(
    "budgets.global_concurrency = 0 | many | 1.5 | true | -3 | null",
    "agents.timeout_seconds = 0 | 2592001",
    "pools.a = x | [A] | [1] | [x, x] | [shared]",
    "budgets.tenants.acme = 5",
)


@pytest.mark.parametrize(("key", "value"), OVERRIDES)
def test_a_wrong_option_is_refused_by_name(key: str, value: str):
    error = refused(overrides={key: value})
    assert (error.key, error.source) == (key, "command line")


def test_everything_wrong_is_told_at_once_and_disagreement_with_both_origins():
    error = refused(overrides={"agents.slots_inline": 0, "journal.replicas": 9})
    assert error.key == "journal.replicas"
    assert "agents.slots_inline (command line)" in str(error)
    error = refused(environ={"CALLBOARD_LEASE__LEASE_SECONDS": "2"})
    assert f"lease.suspect_seconds (default ({PARALLEL}))" in str(error)
    assert "listed twice" in str(refused(overrides={"pools": {"a": ["x"], "b": ["y", "x"]}}))
    assert refused(overrides={"pools.\ud800\0": []}).args[0].isprintable()
    error = refused(overrides={"budgets.tenants.acme": {}})
    assert error.key == "budgets.tenants.acme.concurrency"


@pytest.mark.parametrize(
    "name", ["A", "-a", "_a", "a" * 64, "ä", "a\n", "all", "shared", "refused"]
)
def test_a_tenant_is_accepted_in_the_settings_if_it_may_post(name: str):
    with pytest.raises(BadInput):
        check_tenant(name)
    assert refused(overrides={"pools.p": [name]}).key == "pools.p"
    assert refused(overrides={"budgets.tenants": {name: {"concurrency": 1}}})
    for good in ("0", "a_b-c", "a" * 63):
        overrides = {f"budgets.tenants.{check_tenant(good)}.concurrency": 1}
        assert load_settings(overrides=overrides).budgets.tenant_limit(good) == 1


PAIRS = zip("abcdefgh", "bcdefghi", strict=True)
LAUGHS = "".join(f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n" for last, name in PAIRS)
DOCUMENTS = [
    ("a: &a [x, x]\n" + LAUGHS, "line 1: aliases and anchors"),
    ("pools:\n  a: *p", "line 2: aliases and anchors"),
    ("pools: {<<: [x]}", "not a name"),
    ("pools: !!python/object/apply:os.system [ls]", "tags"),
    ("pools: !!int '12:30:45'", "tags"),
    ("pools:\n  a: [x]\n  a: [y]", "line 3: the key 'a' stands twice"),
    ("? [a]\n: b", "a key must be a word"),
    ("pools: " + "[" * 100_000, "nested deeper"),
    ("pools: {a: [" + "9" * 5000 + "]}", "not valid YAML"),
    ("pools: {a: [x]", "line 1"),
    ("pools: {}\n---\npools: {}", "single document"),
    ("pools: \x07", "not valid YAML"),
    ("- a", "must be a mapping"),
    ("pools: {}\n#" + "x" * 300_000, "larger than 256 KiB"),
    ("pools: {}\n# \udcff", "UTF-8"),
]


@pytest.mark.parametrize(("text", "reason"), DOCUMENTS, ids=itertools.count())
def test_a_hostile_or_broken_document_is_refused_by_file(text: str, reason: str, tmp_path: Path):
    file = written(tmp_path, "", ROUTING)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    began = time.monotonic()
    error = refused([file])
    assert time.monotonic() - began < 5
    assert error.source == f"file {file}"
    assert reason in str(error)


@pytest.mark.parametrize("text", ["", "# a comment\n", "\ufeffpools: {}", "pools:\n"])
def test_a_document_that_sets_nothing_is_fine(text: str, tmp_path: Path):
    assert load_settings(files=[written(tmp_path, text, ROUTING)]).pools == {}


def test_what_cannot_be_settings_is_not_silently_left_out(tmp_path: Path):
    assert refused(environ={"CALLBOARD_POOLS": "{a: [x"}).key == "pools"
    assert "no such file" in str(refused([tmp_path / "missing"]))
    assert PARALLEL in str(refused(environ={"CALLBOARD_CONFIG": str(tmp_path)}))
    assert PARALLEL in str(refused([written(tmp_path, "", "settings.yaml")]))
    for name in ("resource_limits.yml", "resource-limits.yaml"):
        file = written(tmp_path / name[8:], "", name)
        assert f"rename it to {LIMITS}" in str(refused([file.parent]))


V1 = {"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}
ALL = float(len(os.sched_getaffinity(0)))
CGROUPS: list[tuple[str, dict[str, str], float]] = [
    ("0::/", {"cpu.max": "50000 100000\n"}, 0.5),
    ("0::/a/b", {"a/b/cpu.max": "90000 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
    ("0::/not/mounted/here", {"cpu.max": "50000 100000\n"}, 0.5),
    ("0::/../up", {"cpu.max": "50000 100000\n"}, 0.5),
    ("3:cpu,cpuacct:/d\n0::/", {f"cpu,cpuacct/d/{name}": V1[name] for name in V1}, 0.5),
    ("1:cpu:/", {f"cpu/{name}": V1[name] for name in V1}, 0.5),
    ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, ALL),
    ("1:cpuset:/", {f"cpu/{name}": V1[name] for name in V1}, ALL),
    ("0::/", {"cpu.max": "max 100000\n"}, ALL),
    ("0::/", {"cpu.max": "50000 0\n"}, ALL),
    ("0::/", {"cpu.max": "999999900000 100000\n"}, ALL),
    ("", {}, ALL),
]


@pytest.mark.parametrize(("groups", "files", "cpus"), CGROUPS, ids=itertools.count())
def test_the_tightest_quota_or_the_affinity_bounds_the_usable_cpus(
    groups: str, files: dict[str, str], cpus: float, tmp_path: Path
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    membership = written(tmp_path, groups, "membership")
    assert usable_cpus(cgroup_root=tmp_path, membership=membership) == cpus


def test_a_process_bound_to_one_cpu_counts_one():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from callboard_config import usable_cpus; print(usable_cpus() <= 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "True"


def test_a_cpu_carries_four_agents_and_a_machine_at_least_ten():
    assert [auto_concurrency(cpus) for cpus in (0.5, 2, 2.1, 3, 64)] == [10, 10, 12, 12, 256]
    assert auto_concurrency() == auto_concurrency(usable_cpus())
    tenants: dict[str, object] = {"budgets.tenants.acme.concurrency": 3}
    budgets = load_settings(overrides=tenants).budgets
    assert (budgets.global_limit(), budgets.tenant_limit("acme")) == (auto_concurrency(), 3)
    assert budgets.tenant_limit("other") == budgets.global_limit()
    fixed = {"budgets.global_concurrency": 50, "budgets.tenant_concurrency": 5}
    budgets = load_settings(overrides=fixed).budgets
    assert (budgets.global_limit(), budgets.tenant_limit("other")) == (50, 5)
