"""Which group of version 2 a host may divide, on folders as the kernel lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callboard_agents.sandbox.delegation import divide, group_of, own_group

NEEDED = ("memory", "cpu", "pids")
OTHER = 1  # a process that this one is not


def group(root: Path, name: str, *, pids: tuple[int, ...] = (), offers: str = "cpu memory pids"):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")
    (folder / "cgroup.controllers").write_text(f"{offers}\n", encoding="ascii")
    return folder


def mark(folder: Path, value: bytes = b"1"):
    try:
        os.setxattr(folder, "user.delegate", value)
    except OSError as error:
        pytest.skip(f"this file system has no attributes for users: {error}")


def test_the_group_that_the_kernel_names_is_divided(tmp_path: Path):
    group(tmp_path, "")
    job = group(tmp_path, "jobs/mine", pids=(OTHER, os.getpid()))
    assert own_group(tmp_path, "/jobs/mine", NEEDED) == job


def test_a_host_that_was_moved_into_the_leaf_divides_the_group_above(tmp_path: Path):
    job = group(tmp_path, "job")
    group(tmp_path, "job/callboard.leaf", pids=(os.getpid(),), offers="")
    assert own_group(tmp_path, "/job/callboard.leaf", NEEDED) == job


@pytest.mark.parametrize("leaf", ["", "callboard.leaf"])
def test_in_a_container_without_a_namespace_of_groups_the_mount_is_the_group(
    tmp_path: Path, leaf: str
):
    group(tmp_path, "")
    group(tmp_path, leaf, pids=(os.getpid(),))
    assert own_group(tmp_path, f"/docker/0123/{leaf}".rstrip("/"), NEEDED) == tmp_path
    cell = group(tmp_path, "callboard-7-1-shell-0")
    assert group_of(tmp_path, "/docker/0123/callboard-7-1-shell-0") == cell


@pytest.mark.parametrize("path", ["/..", "/../job", "/job", "/"])
def test_a_group_outside_of_what_is_mounted_is_none(tmp_path: Path, path: str):
    group(tmp_path, "top", pids=(OTHER,))
    group(tmp_path, "job", pids=(os.getpid(),))
    with pytest.raises(FileNotFoundError, match="is not below"):
        own_group(tmp_path / "top", path, NEEDED)


def test_a_controller_that_is_not_handed_down_is_named(tmp_path: Path):
    job = group(tmp_path, "job", pids=(os.getpid(),), offers="memory io")
    with pytest.raises(OSError, match=f"cpu and pids is not delegated to {job}"):
        own_group(tmp_path, "/job", NEEDED)


SCOPE = "user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope"


def test_what_systemd_keeps_for_itself_is_not_divided(tmp_path: Path):
    scope = group(tmp_path, SCOPE, pids=(os.getpid(),))
    with pytest.raises(PermissionError, match="Delegate=yes"):
        own_group(tmp_path, f"/{SCOPE}", NEEDED)
    mark(scope, b"0")
    with pytest.raises(PermissionError, match="Delegate=yes"):
        own_group(tmp_path, f"/{SCOPE}", NEEDED)


def test_what_systemd_delegates_is_divided(tmp_path: Path):
    scope = group(tmp_path, SCOPE, pids=(os.getpid(),))
    mark(scope)
    assert own_group(tmp_path, f"/{SCOPE}", NEEDED) == scope


def test_where_systemd_has_made_a_leaf_the_unit_is_divided(tmp_path: Path):
    unit = group(tmp_path, "system.slice/board.service")
    mark(unit)
    group(tmp_path, "system.slice/board.service/main", pids=(os.getpid(),), offers="")
    assert own_group(tmp_path, "/system.slice/board.service/main", NEEDED) == unit


def test_a_group_of_its_own_in_a_delegated_service_is_divided_alone(tmp_path: Path):
    unit = group(tmp_path, "system.slice/containers.service")
    mark(unit)
    own = group(tmp_path, "system.slice/containers.service/one", pids=(os.getpid(),))
    assert own_group(tmp_path, "/system.slice/containers.service/one", NEEDED) == own


def test_a_group_that_is_divided_already_is_left_as_it_is(tmp_path: Path):
    job = group(tmp_path, "job", pids=(os.getpid(),))
    (job / "cgroup.subtree_control").write_text("cpu io memory pids\n", encoding="ascii")
    divide(job, NEEDED)
    assert (job / "cgroup.subtree_control").read_text(encoding="ascii") == "cpu io memory pids\n"
    assert not (job / "callboard.leaf").exists()
