"""The measured part of docs/cluster.md is what the benchmark makes of the numbers beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cluster.md"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The page, with its numbers beside it."""
    shutil.copy(PAGE.with_suffix(".json"), tmp_path)
    return Path(shutil.copy(PAGE, tmp_path))


def written(page: Path) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "cluster.py"), "--write-only"]
    subprocess.run([*command, "--json", str(page.with_suffix(".json"))], check=True)
    return page.read_text(encoding="utf-8")


def test_what_is_committed_is_what_is_written(copy: Path) -> None:
    assert written(copy) == PAGE.read_text(encoding="utf-8")


def test_other_numbers_make_another_page(copy: Path) -> None:
    numbers = json.loads(copy.with_suffix(".json").read_text(encoding="utf-8"))
    numbers |= {"passed": False, "seconds_a_task": 1.0}
    copy.with_suffix(".json").write_text(json.dumps(numbers), encoding="utf-8")
    page, before = written(copy), PAGE.read_text(encoding="utf-8")
    assert "**Masks or statistics differ**" in page
    assert "at 1000.0 ms" in page
    assert page.partition("<!-- measured -->")[0] == before.partition("<!-- measured -->")[0]
    assert page.partition("<!-- end of measured -->")[2] == before.partition("<!-- end of measured -->")[2]
