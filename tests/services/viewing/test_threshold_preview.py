"""Where there is no model, a threshold labels what is bright, and says so."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.application import Application
from voxport.domain.errors import CancelledError
from voxport.domain.run import Outputs
from voxport.services.viewing.sessions import RunProgress


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(40, 5, (30, 20, 10)).astype(np.float32)
    values[5:12, 4:9, 2:6] = 200
    values[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, 1.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def test_bright_voxels_are_labelled_on_the_same_grid(scan: Path) -> None:
    outputs = Outputs(str(scan.with_name("mask.nii.gz")), statistics=str(scan.with_name("statistics.csv")))
    progress = RunProgress()
    report = Application.build().threshold_preview([str(scan)], outputs, progress)
    image, mask = nib.load(scan), nib.load(outputs.mask)
    values = np.nan_to_num(np.asarray(image.dataobj))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), values > report["threshold"])
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert report["statistics"]["labels"][0]["voxels"] == 7 * 5 * 4
    assert "no model" in report["warnings"][0]
    assert "model" not in report
    assert "above threshold" in scan.with_name("statistics.csv").read_text(encoding="utf-8")


def test_a_cancelled_preview_leaves_no_files(scan: Path) -> None:
    progress = RunProgress()
    progress.cancel()
    with pytest.raises(CancelledError):
        Application.build().threshold_preview([str(scan)], Outputs(str(scan.with_name("mask.nii"))), progress)
    assert not scan.with_name("mask.nii").exists()
