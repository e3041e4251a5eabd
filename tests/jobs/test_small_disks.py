"""Disks that are really full and really read-only: nothing accepted is lost, and it goes on by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .processes import ROOT
from .small_disks import SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_jobs_on_a_disk_that(scenario: Callable[[Path], None], tmp_path: Path) -> None:
    """In a mount of its own, since root may write where permissions forbid it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"{sys.executable} -m tests.jobs.small_disks {scenario.__name__} {tmp_path}"
    script = f"mount -t tmpfs -o size={SCENARIOS[scenario]} none {disk} && exec {command}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
