"""The napari plug-in, in a real napari on a screen that nobody sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import voxport as package
import yaml
from voxport.domain.volume_names import ALL_NAMES

from tests.cli.conftest import AFFINE, Command, environment, voxport
from tests.rest.conftest import named_model, scan
from tests.rest.serving import running_server

__all__ = ["scan", "voxport"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, scan: Path, voxport: Command) -> Path:
    """A scan with its mask by the command line, and models of one channel and of two."""
    models = tmp_path / "data" / "voxport" / "models"
    named_model(models, "other", classes=3)
    named_model(models, "pair", channels=2)
    named_model(models, "slow", patch=(8, 8, 8), overlap=0.75)
    shutil.move(scan, tmp_path / "scan.nii.gz")
    done = voxport("segment", "scan.nii.gz", "-m", "other", "-o", "mask.nii.gz")
    assert done.returncode == 0, done.stderr
    return tmp_path


def session(name: str, folder: Path, *more: str) -> None:
    if shutil.which("xvfb-run") is None:
        pytest.skip("this machine has no Xvfb")
    command = ["xvfb-run", "-a", sys.executable, "-m", "tests.napari.session", name, str(folder), *more]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = environment(folder) | {"HOME": str(folder), "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_a_file_is_opened_segmented_and_its_labels_saved(folder: Path) -> None:
    session("files", folder)
    assert b"Segment1_Name:=" in (folder / "saved.seg.nrrd").read_bytes()


def test_a_server_gives_the_same_labels(folder: Path) -> None:
    models = folder / "data" / "voxport" / "models"
    with running_server(folder, "--models", str(models), "-m", "other") as server:
        session("files", folder, server.url)


def test_arrays_are_segmented_as_from_python(folder: Path) -> None:
    session("arrays", folder)
    values = np.load(folder / "values.npy").transpose(0, 3, 2, 1)
    models = folder / "data" / "voxport" / "models"
    for name, case in {"pair": values, "other": values[0]}.items():
        with package.load(models / f"{name}-1.0.0.onnx") as predict:
            # 500 x 500 x 2000 nm, moved; the grid turns nothing
            expected = predict(case, spacing=(0.5, 0.5, 2.0), unit="um").labels.array
        found = np.load(folder / {"pair": "pair.npy", "other": "pyramid.npy"}[name])
        np.testing.assert_array_equal(found.transpose(), expected)


def test_a_run_is_cancelled_and_an_absent_server_shown(folder: Path) -> None:
    session("cancels", folder)


def test_the_scan_of_these_tests_is_oblique() -> None:
    assert not np.allclose(AFFINE[:3, :3], np.diag(np.diag(AFFINE[:3, :3])))
    assert nib.aff2axcodes(AFFINE) != ("R", "A", "S")


def test_napari_offers_the_reader_for_every_format_that_is_read() -> None:
    file = Path(package.__file__).parent / "entrypoints/napari/napari.yaml"
    manifest = yaml.safe_load(file.read_text(encoding="utf-8"))
    (reads,) = manifest["contributions"]["readers"]
    inputs = (known for known in ALL_NAMES.formats if known.is_input)
    endings = {ending for known in inputs for ending in known.endings}
    missing = {ending for ending in endings if not any(fnmatch(f"a{ending}", p) for p in reads["filename_patterns"])}
    assert missing == set()
    (writes,) = manifest["contributions"]["writers"]
    assert set(writes["filename_extensions"]) <= set(ALL_NAMES.writable)
