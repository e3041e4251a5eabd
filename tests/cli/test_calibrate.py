"""``voxport calibrate`` fits a temperature and writes it into a copy of the model, whose masks stay the same."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from .conftest import Command


@pytest.fixture
def truth(scan: Path, tmp_path: Path) -> Path:
    """Two labelled cases, of which the labels are those of chance."""
    folder = tmp_path / "truth"
    folder.mkdir()
    image = nib.load(scan)
    for seed in range(2):
        labels = np.random.default_rng(seed).integers(0, 2, image.shape, np.uint8)
        nib.save(image, folder / f"{seed}_image.nii.gz")
        nib.save(nib.Nifti1Image(labels, image.affine, image.header), folder / f"{seed}_label.nii.gz")
    return folder


def test_a_calibrated_copy_has_the_same_masks_and_other_probabilities(
    voxport: Command, model: Path, scan: Path, truth: Path, tmp_path: Path
) -> None:
    done = voxport("calibrate", model, "--truth", truth, "-o", "warm.onnx", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["cases"] == 2
    assert told["temperature"] > 5  # labels of chance
    assert told["ece_after"] < told["ece_before"]
    found = []
    for name in (model, "warm.onnx"):
        files = {"-o": "mask.nii", "--probabilities": "p.nii", "--uncertainty": "u.nii", "--statistics": "s.json"}
        done = voxport("segment", scan, "-m", name, *(word for pair in files.items() for word in pair))
        assert done.returncode == 0, done.stderr
        lists = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["uncertainty"]
        volumes = (np.asarray(nib.load(tmp_path / f"{part}.nii").dataobj) for part in ("mask", "p", "u"))
        found.append((*volumes, lists))
    (mask, cold, _, one), (same, warm, levels, other) = found
    np.testing.assert_array_equal(mask, same)
    assert np.abs(cold - 0.5).mean() > 2 * np.abs(warm - 0.5).mean()
    assert levels.shape == (21, 18, 13, 3)
    assert one["entropy"] < other["entropy"]
    assert voxport("calibrate", "warm.onnx", "--truth", truth).stdout.endswith("left out of the fit\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--truth: expected one folder or two, got 0"),
        (["--truth", "nowhere"], 3, "nowhere: expected a folder of volumes"),
        (["--truth", "truth", "-o", "copy.nii"], 1, "copy.nii: expected a name that ends in .onnx"),
        (["--truth", "truth", "-o", "nowhere/copy.onnx"], 1, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_is_written(
    voxport: Command, model: Path, truth: Path, arguments: list[str], code: int, message: str
) -> None:
    done = voxport("calibrate", model, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in truth.parent.iterdir()} - {"data"} == {"model.onnx", "scan.nii.gz", "truth"}
