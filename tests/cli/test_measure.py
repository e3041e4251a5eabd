"""``voxport measure``, on small files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.contract.card import revise_card

from tests.services.measurement.shapes import places, rod

from .conftest import Command

SPACING = (0.5, 0.5, 2.0)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """A tube of 20 um, oblique, with a radius of 2 um."""
    found = rod(places((60, 60, 15), SPACING), (5, 15, 11), (25, 15, 17), 2.0, round_ends=False)
    image = nib.Nifti1Image(found.astype(np.uint8), np.diag([*SPACING, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


def test_a_mask_is_measured_into_a_folder_and_as_json(voxport: Command, mask: Path, tmp_path: Path) -> None:
    done = voxport("measure", mask, "-o", "tubes")
    assert done.returncode == 0, done.stderr
    assert "Lengths and radii in um." in done.stdout
    assert sorted(p.name for p in (tmp_path / "tubes").iterdir()) == ["1.swc", "labels.csv", "segments.csv"]
    again = json.loads(voxport("measure", mask, "-o", "tubes", "--json").stdout)
    (label,) = again["labels"]
    assert label["length"] == pytest.approx(np.hypot(20, 6), rel=0.05)
    assert again["unit"] == "um"
    assert label["unit"] == "um"


def test_what_cannot_be_measured_or_written_is_one_line(
    voxport: Command, mask: Path, scan: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0.5, image.affine), tmp_path / "half.nii")
    for arguments, code, said in (
        ((mask, "-o", "taken"), 1, "holds thesis.txt"),
        ((mask, "-o", "no/where"), 1, "no such folder"),
        (("missing.nii", "-o", "tubes"), 3, "missing.nii"),
        (("half.nii", "-o", "tubes"), 3, "label map"),
        ((scan, "-o", "tubes"), 3, "right angles"),
    ):
        done = voxport("measure", *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "tubes").exists()


@pytest.fixture
def measuring(model: Path) -> Path:
    """A model whose card asks for measures of tubes."""
    files = OnnxModelFiles()
    files.write(model, revise_card(files.read(model).card, {"measure": "tubular"}), model)
    return model


def test_segment_measures_where_the_card_asks_for_it(
    voxport: Command, mask: Path, measuring: Path, tmp_path: Path
) -> None:
    scan = tmp_path / "tube.nii.gz"
    mask.rename(scan)
    for _ in range(2):  # the second run replaces the files of the first
        done = voxport("segment", scan, "-m", measuring, "-o", "made.nii.gz")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "tubes are measured in made.tubes"
        assert (tmp_path / "made.tubes" / "labels.csv").read_text(encoding="utf-8").count("\n") == 2
    shown = voxport("segment", scan, "-m", measuring, "-o", "made.nii.gz", "--json")
    assert not [line for line in json.loads(shown.stdout)["warnings"] if "tubes" in line]


def test_a_mask_that_cannot_be_measured_is_written_with_a_warning(
    voxport: Command, scan: Path, measuring: Path, tmp_path: Path
) -> None:
    done = voxport("segment", scan, "-m", measuring, "-o", "mask.nii.gz", "--report", "report.json")
    assert done.returncode == 0
    assert "tubes are not measured: mask.nii.gz: expected axes at right angles" in done.stderr
    assert (tmp_path / "mask.nii.gz").exists()
    assert not (tmp_path / "mask.tubes").exists()
    warnings = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["warnings"]
    assert any("tubes are not measured" in line for line in warnings)
