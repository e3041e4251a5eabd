"""A disk that is really full amid a run in blocks: the run goes on once there is room, and the bytes are the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.cli.conftest import environment
from tests.demo.conftest import save
from tests.rest.conftest import named_model

from .test_processes import files_of

# In a mount of its own, which goes with the shell: so it looks, and copies what it sees.
SCRIPT = """
mount -t tmpfs -o size=1m none disk || exit 90
"$@" 2> first; echo $? >> codes
cp -r disk before
mount -o remount,size=64m disk || exit 91
"$@" 2> second; echo $? >> codes
cp -r disk after
"""


def test_a_run_that_finds_no_room_goes_on_once_there_is_some(tmp_path: Path) -> None:
    shape = (60, 56, 40)
    values = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    save(tmp_path / "scan.nii.gz", values, np.diag([-1.0, 1.0, 2.0, 1.0]), "mm")
    named_model(tmp_path / "models", "edges", patch=(8, 8, 8))
    (tmp_path / "disk").mkdir()
    command = [sys.executable, "-m", "voxport", "segment", "scan.nii.gz", "-m", "models/edges-1.0.0.onnx", "--quiet"]
    one = ["-o", "mask.ome.zarr"]
    subprocess.run([*command, *one], cwd=tmp_path, env=environment(tmp_path), check=True)
    blocks = ["-o", "disk/mask.ome.zarr", "--cluster", "local:1", "--block", "20"]
    unshared = ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", *command, *blocks]
    subprocess.run(unshared, cwd=tmp_path, env=environment(tmp_path), check=True)
    assert (tmp_path / "codes").read_text(encoding="utf-8").split() == ["1", "0"]
    said = (tmp_path / "first").read_text(encoding="utf-8")
    assert len(said.splitlines()) == 1
    assert "no space left" in said
    assert "make room, or choose another place" in said
    assert "run again: what was finished is kept" in said
    before, after = tmp_path / "before", tmp_path / "after"
    assert list(before.glob("mask.ome.zarr.blocks/inferred/*.json"))
    assert not (before / "mask.ome.zarr").exists()
    assert [path.name for path in after.iterdir()] == ["mask.ome.zarr"]
    assert files_of(after / "mask.ome.zarr") == files_of(tmp_path / "mask.ome.zarr")
