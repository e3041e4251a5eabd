"""docs/performance.md and its plot are what the writer makes of the numbers beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = ROOT / "docs" / "performance.json"


def write(numbers: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "performance.py"), "--write-only", "--json", str(numbers)]
    subprocess.run(command, check=True)


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    return Path(shutil.copy(NUMBERS, tmp_path))


@pytest.mark.parametrize("ending", [".md", ".svg"])
def test_what_is_committed_is_what_is_written(numbers: Path, ending: str) -> None:
    write(numbers)
    assert numbers.with_suffix(ending).read_text(encoding="utf-8") == NUMBERS.with_suffix(ending).read_text(
        encoding="utf-8"
    )


def test_writing_leaves_the_numbers_alone(numbers: Path) -> None:
    write(numbers)
    assert numbers.read_bytes() == NUMBERS.read_bytes()


def test_the_plot_is_small() -> None:
    assert NUMBERS.with_suffix(".svg").stat().st_size < 200_000


def changed(numbers: Path, change: dict[str, Any]) -> str:
    numbers.write_text(json.dumps(json.loads(numbers.read_text(encoding="utf-8")) | change), encoding="utf-8")
    write(numbers)
    return numbers.with_suffix(".md").read_text(encoding="utf-8")


def test_a_part_that_was_not_measured_is_reported(numbers: Path) -> None:
    found = json.loads(numbers.read_text(encoding="utf-8"))
    numbers.write_text(json.dumps({name: found[name] for name in ("machine", "quick", "failed")}), encoding="utf-8")
    write(numbers)
    assert numbers.with_suffix(".md").read_text(encoding="utf-8").count("not measured") >= 9


def test_other_numbers_make_another_page(numbers: Path) -> None:
    assert "a processor of 1971" in changed(numbers, {"machine": {"processors": "a processor of 1971"}})


def test_a_quick_run_is_marked(numbers: Path) -> None:
    assert "not how fast" in changed(numbers, {"quick": True})
