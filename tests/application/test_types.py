"""The seam between entry points and use cases is typed: mypy refuses wrong calls across it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIGHT = """
from pathlib import Path

from voxport import Application, Outputs, RunOptions, VoxportError
from voxport.ports.progress import ProgressListener


def mask_of(application: Application, scan: str, progress: ProgressListener) -> int:
    loaded = application.load_model(application.find_model("vessels"), runtime="onnx")
    done = application.segment([scan], loaded, Outputs("mask.nii.gz"), RunOptions(), progress)
    return done.grid.voxel_count
"""
# a wrong call, and the code of mypy's error
WRONG = (
    ("application.find_model(3)", "arg-type"),
    ('application.find_model("m").missing', "attr-defined"),
    ('application.load_model("vessels")', "arg-type"),
    ('application.load_model(application.find_model("m"), "onnx")', "call-arg"),
    ('application.load_model(application.find_model("m"), threads="2")', "arg-type"),
    ("application.segment(scan, 1, Outputs(scan), RunOptions(), progress)", "arg-type"),
    ('application.estimate([scan], "m", RunOptions(), progress)', "arg-type"),
    ('application.tune("m", [], progress)', "arg-type"),
    ("application.volumes.open(3)", "arg-type"),
    ("application.served_models.take(3)", "arg-type"),
    ("application.forget_job(3, None)", "arg-type"),
    ("application.submit_case([], 'm', RunOptions(), [], owner=3)", "arg-type"),
    ("application.settings.nothing", "attr-defined"),
    ("application.no_use_case()", "attr-defined"),
)


def mypy(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Check a file that calls the application, strictly, as this project's own files are."""
    (folder / "caller.py").write_text(source, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "caller.py"],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(ROOT / ".types")},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_a_right_call_passes_and_each_wrong_call_fails(tmp_path: Path) -> None:
    right = mypy(tmp_path, RIGHT)
    assert right.returncode == 0, right.stdout
    lines = "".join(f"    {call}\n" for call, _ in WRONG)
    source = f"{RIGHT}\n\ndef wrong(application: Application, scan: str, progress: ProgressListener) -> None:\n{lines}"
    wrong = mypy(tmp_path, source)
    assert wrong.returncode == 1
    first = source[: source.index(lines)].count("\n") + 1
    for number, (call, code) in enumerate(WRONG, first):
        found = [line for line in wrong.stdout.splitlines() if line.startswith(f"caller.py:{number}: error:")]
        assert any(f"[{code}]" in line for line in found), (call, found)
