"""What the machine has, a container's limits included."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
from voxport.adapters.resources import local
from voxport.adapters.resources.local import LocalResources
from voxport.ports.resources import Resources
from voxport.testing.resources import ResourcesContract

MB = 2**20


class TestLocalResources(ResourcesContract):
    def make_resources(self) -> Resources:
        return LocalResources()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the files of the system say from now on; those not named are not there."""
    contents: dict[str, str] = {}

    def first_line(path: str) -> str:
        return contents.get(path, "")

    monkeypatch.setattr(local, "_first_line", first_line)
    return contents


@pytest.fixture
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight_processors")
@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_processors_are_those_of_this_process_and_of_its_quota(
    files: dict[str, str], quota: str, expected: int
) -> None:
    files["/sys/fs/cgroup/cpu.max"] = quota
    assert LocalResources().processors() == expected


def test_without_affinity_all_processors_count(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    del files
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert LocalResources().processors() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert LocalResources().processors() == 1


def limits(files: dict[str, str], **cgroup: str) -> Mapping[str, str]:
    files |= {f"/sys/fs/cgroup/memory.{name}": text for name, text in cgroup.items()}
    return files


def test_free_memory_is_about_what_psutil_says(files: dict[str, str]) -> None:
    del files
    assert LocalResources().available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_containers_memory_limit_less_what_it_uses_is_what_is_free(files: dict[str, str]) -> None:
    free = LocalResources().available_bytes()
    limits(files, max=str(300 * MB), current=str(100 * MB))
    assert LocalResources().available_bytes() == 200 * MB < free
    limits(files, max=str(300 * MB), current="")
    assert LocalResources().available_bytes() == 300 * MB
    limits(files, max=str(300 * MB), current=str(400 * MB))
    assert LocalResources().available_bytes() == 0


def test_no_limit_is_none(files: dict[str, str]) -> None:
    limits(files, max="max", current="5")
    assert LocalResources().available_bytes() > 100 * MB


def test_without_meminfo_all_memory_counts(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    del files
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert LocalResources().available_bytes() == pytest.approx(psutil.virtual_memory().total, rel=0.05)


def test_resident_memory_is_what_psutil_says_and_no_more_than_the_peak() -> None:
    assert LocalResources().resident_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert LocalResources().peak_resident_bytes() >= LocalResources().resident_bytes() * 0.95


def test_the_peak_remembers_what_was_freed() -> None:
    before = LocalResources().resident_bytes()
    np.ones(64 * MB, np.uint8)
    assert LocalResources().peak_resident_bytes() >= before + 60 * MB


def test_resident_memory_without_procfs_is_the_peak(files: dict[str, str]) -> None:
    del files
    assert LocalResources().resident_bytes() == pytest.approx(LocalResources().peak_resident_bytes(), rel=0.01)


def test_the_peak_is_in_bytes_on_a_mac_already(monkeypatch: pytest.MonkeyPatch) -> None:
    here = LocalResources().peak_resident_bytes()
    monkeypatch.setattr("sys.platform", "darwin")
    assert LocalResources().peak_resident_bytes() == pytest.approx(here / 1024, rel=0.01)


def test_a_machine_is_described_with_the_libraries_that_are_installed() -> None:
    assert {"onnxruntime", "openvino"} <= dict(LocalResources().describe().versions).keys()


def test_where_onednn_is_limited_the_machine_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An int8 network made without the limit has weights whose sums saturate under it."""
    without = LocalResources().describe()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    limited = LocalResources().describe()
    assert limited.processor == f"{without.processor} AVX2"
    assert (limited.threads, limited.versions) == (without.threads, without.versions)
