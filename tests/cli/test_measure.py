"""``voxport measure``, on small files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

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
