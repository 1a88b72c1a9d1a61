"""The memory that a host says it has left: the machine's, or less under a cgroup's limit."""

from __future__ import annotations

from pathlib import Path

import psutil

from callboard_agents.cpu_load import CpuLoad
from callboard_agents.memory import free_memory_mb, total_memory_mb

MIB = 1024 * 1024


def group(root: Path, name: str, **files: str) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text + "\n", encoding="utf-8")


def free(root: Path, membership: str) -> float:
    file = root / "membership"
    file.write_text(membership, encoding="utf-8")
    return free_memory_mb(cgroup_root=root, membership=file)


def test_without_a_limit_it_is_the_machines(tmp_path: Path):
    group(tmp_path, "job", memory__max="max", memory__current="1")
    here = free(tmp_path, "0::/job\n")
    assert 0 < here <= psutil.virtual_memory().total / MIB


def test_the_tightest_group_on_the_way_up_counts_without_its_droppable_pages(tmp_path: Path):
    stat = f"anon {5 * MIB}\ninactive_file {2 * MIB}\nactive_file {MIB}"
    group(
        tmp_path,
        "slice/job",
        memory__max=str(64 * MIB),
        memory__current=str(10 * MIB),
        memory__stat=stat,
    )
    assert free(tmp_path, "0::/slice/job\n") == 56
    group(tmp_path, "slice", memory__max=str(30 * MIB), memory__current=str(29 * MIB))
    assert free(tmp_path, "0::/slice/job\n") == 1
    group(tmp_path, "slice", memory__max=str(20 * MIB))
    assert free(tmp_path, "0::/slice/job\n") == 0


def test_where_the_kernel_begins_to_hold_processes_up_is_a_limit_too(tmp_path: Path):
    group(tmp_path, "job", memory__max="max", memory__high=str(64 * MIB))
    group(tmp_path, "job", memory__current=str(10 * MIB))
    assert free(tmp_path, "0::/job\n") == 54
    group(tmp_path, "job", memory__max=str(32 * MIB))
    assert free(tmp_path, "0::/job\n") == 22
    assert total_memory_mb(cgroup_root=tmp_path, membership=tmp_path / "membership") == 32


def test_the_first_version_of_cgroups_counts_as_well(tmp_path: Path):
    group(
        tmp_path,
        "memory/docker/x",
        memory__limit_in_bytes=str(8 * MIB),
        memory__usage_in_bytes=str(5 * MIB),
        memory__stat=f"total_inactive_file {MIB}",
    )
    assert free(tmp_path, "4:memory:/docker/x\n1:name=systemd:/docker/x\n") == 4


def test_the_total_is_the_machines_or_the_least_limit_on_the_way_up(tmp_path: Path):
    group(tmp_path, "slice/job", memory__max="max")
    file = tmp_path / "membership"
    file.write_text("0::/slice/job\n", encoding="utf-8")
    machine = psutil.virtual_memory().total / MIB
    assert total_memory_mb(cgroup_root=tmp_path, membership=file) == machine
    group(tmp_path, "slice", memory__max=str(64 * MIB))
    assert total_memory_mb(cgroup_root=tmp_path, membership=file) == 64


def test_the_cpu_load_under_a_quota_is_the_part_of_it_that_the_group_has_used(tmp_path: Path):
    file = tmp_path / "membership"
    file.write_text("0::/job\n", encoding="utf-8")
    quota = {"cpu__max": "200 100000"}  # so little that the machine's own load is below it
    group(tmp_path, "job", **quota, cpu__stat="usage_usec 0\nuser_usec 0")
    load = CpuLoad(cgroup_root=tmp_path, membership=file)
    load.look(100.0)
    group(tmp_path, "job", cpu__stat="usage_usec 20000\nuser_usec 0")
    assert load.look(110.0) == 1.0
    machine = load.look(120.0)
    assert 0 <= machine <= 1
