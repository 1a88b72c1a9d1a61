"""What `deploy/` promises: read from its files everywhere, and seen where there is an engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose import DEPLOY, Project, base_image, compose_command, open_engine, open_project

ROOT = DEPLOY.parent
PARTS = ("router", "standby", "ledger", "agents")


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = document["services"]
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, comments gone and continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), " ".join(rest.split())) for name, rest in pairs]


def final_stage() -> list[tuple[str, str]]:
    told = instructions()
    last = max(index for index, (name, _) in enumerate(told) if name == "FROM")
    return told[last:]


def is_pinned(image: str) -> bool:
    name, colon, tag = image.rpartition(":")
    return bool(name and colon and tag) and tag != "latest" and "/" not in tag


def with_defaults(text: str) -> str:
    """As Compose reads it when no variable is set."""
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)


def test_the_image_runs_as_a_numbered_user_who_is_not_root():
    users = [rest for name, rest in final_stage() if name == "USER"]
    user, _, group = users[-1].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_last_stage_holds_the_environment_and_runs_nothing_as_root():
    names = [name for name, _ in final_stage()]
    assert "RUN" not in names
    assert "ADD" not in names
    assert all("--from=build" in rest for name, rest in final_stage() if name == "COPY")


def test_the_image_is_the_callboard_command_and_has_a_health_check():
    told = dict(final_stage())
    assert told["ENTRYPOINT"] == '["callboard"]'
    assert "callboard" in told["HEALTHCHECK"]


def test_no_image_floats(services: dict[str, dict[str, Any]]):
    defaults = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG")
    assert is_pinned(defaults["BASE"])
    for rest in (rest for name, rest in instructions() if name == "FROM"):
        assert rest.split()[0] in {"${BASE}", "${BUILDER}"}
    for service in services.values():
        assert is_pinned(with_defaults(service["image"])), service["image"]


def test_the_image_is_tagged_with_the_version_of_the_package(services: dict[str, dict[str, Any]]):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    expected = f"callboard:{project['version']}"
    assert {with_defaults(services[name]["image"]) for name in ("store", *PARTS)} == {expected}


def test_the_build_gets_every_package_of_the_wheel_and_nothing_else():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {Path(package).parts[0] for package in wheel["packages"]}
    needed |= {"pyproject.toml", "README.md", "LICENSE"}
    sources: set[str] = set()
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            sources.update(rest.split()[:-1])
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert sources == needed
    assert {rule[1:] for rule in rules if rule.startswith("!")} == needed


def test_every_service_is_confined(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        user, _, group = service["user"].partition(":")
        assert int(user) > 0, name
        assert int(group) > 0, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert service["cpus"] > 0, name
        assert service["pids_limit"] > 0, name
        forbidden = {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}
        assert not forbidden & service.keys(), name
        assert service.get("network_mode", "none") == "none", name


def test_what_is_mounted_from_the_machine_is_read_only(services: dict[str, dict[str, Any]]):
    for service in services.values():
        for volume in service.get("volumes", ()):
            source, _, rest = with_defaults(volume).partition(":")
            if "/" in source:
                assert rest.endswith(":ro"), volume
                assert "docker.sock" not in volume


def test_only_the_server_can_be_reached_and_only_from_this_machine(
    services: dict[str, dict[str, Any]],
):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert list(published) == ["nats"]
    assert all(port.startswith("127.0.0.1:") for port in published["nats"])


def test_only_agents_reach_the_outside(services: dict[str, dict[str, Any]]):
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    inside = {name for name, network in document["networks"].items() if network.get("internal")}
    for name in ("router", "standby", "ledger"):
        assert set(services[name]["networks"]) <= inside, name


def test_every_part_waits_until_the_server_is_healthy(services: dict[str, dict[str, Any]]):
    assert "/healthz" in " ".join(services["nats"]["healthcheck"]["test"])
    for name in PARTS:
        assert services[name]["depends_on"]["nats"] == {"condition": "service_healthy"}
        assert services[name]["healthcheck"]["test"], name


def test_the_server_syncs_before_it_acknowledges_and_asks_for_a_password(
    services: dict[str, dict[str, Any]],
):
    settings = (DEPLOY / "nats.conf").read_text(encoding="utf-8")
    assert re.search(r"^\s*sync_interval: always$", settings, re.MULTILINE)
    assert re.search(r"^\s*password: \$BOARD_PASSWORD$", settings, re.MULTILINE)
    assert services["nats"]["environment"]["BOARD_PASSWORD"].startswith("${BOARD_PASSWORD:?")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_a_command_with_options_that_exist(
    part: str, services: dict[str, dict[str, Any]]
):
    command = [with_defaults(word) for word in services[part]["command"]]
    asked = [sys.executable, "-m", "callboard", *command, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def image() -> str:
    """Callboard's image, built from this repository."""
    with open_engine() as engine:
        tag = "callboard-tests/callboard:deploy"
        engine.images.build(
            path=str(ROOT),
            dockerfile="deploy/Dockerfile",
            buildargs=base_image(engine),
            tag=tag,
            rm=True,
        )
        return tag


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_the_image_works_without_rights_on_a_read_only_disk(image: str):
    with open_engine() as engine:
        told = engine.containers.run(
            image,
            ["--version"],
            remove=True,
            read_only=True,
            cap_drop=["ALL"],
            network_mode="none",
            security_opt=["no-new-privileges:true"],
        )
    assert told.decode().startswith("callboard ")


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_a_task_posted_from_outside_is_done_by_an_agent_inside(image: str):
    with open_project(image) as board:
        done = board.submit("World")
        assert done["result"]["greeting"] == "Hello, World!"
        assert done["result"]["container"] == board.container("agents").short_id
        assert is_confined(board)


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_the_standby_takes_over_when_the_active_router_is_killed(image: str):
    with open_project(image) as board:
        board.submit("before")
        active, standby = board.routers()
        active.kill()
        done = board.submit("after")
        assert done["result"]["greeting"] == "Hello, after!"
        assert b"is now leader" in standby.logs()


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_down_leaves_nothing_and_down_without_volumes_leaves_the_board(image: str):
    with open_project(image) as board:
        posted = board.submit("kept")
        board.compose("down")
        board.up()
        assert posted["id"] in {item["id"] for item in board.listed()}
        board.compose("down", "--volumes")
        assert board.leftovers() == []


@pytest.mark.docker
def test_compose_refuses_to_start_a_board_without_a_password(tmp_path: Path):
    with open_engine():
        command = [*compose_command(tmp_path), "--file", str(DEPLOY / "compose.yaml"), "config"]
    unset = {name: value for name, value in os.environ.items() if name != "BOARD_PASSWORD"}
    done = subprocess.run(command, env=unset, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "BOARD_PASSWORD" in done.stderr


def is_confined(board: Project) -> bool:
    """Whether the kernel says so of every part's first process."""
    for part in ("nats", *PARTS):
        container = board.container(part)
        status = container.exec_run(["cat", "/proc/1/status"]).output.decode()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(facts["CapBnd"], 16) == 0, part
        assert facts["NoNewPrivs"] == "1", part
        assert facts["Uid"].split() == ["10001"] * 4, part
        written = container.exec_run(["touch", "/etc/planted"])
        assert b"Read-only file system" in written.output, part
    return True
