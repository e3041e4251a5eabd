"""``voxport convert`` and ``voxport inspect`` of volumes."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from .conftest import Command


def test_convert_keeps_voxels_and_geometry(voxport: Command, scan: Path, tmp_path: Path) -> None:
    result = voxport("convert", scan, "-o", "copy.nii")
    assert (result.returncode, result.stderr.count("\n")) == (0, 1), result.stderr
    assert "sform and qform disagree" in result.stderr
    assert result.stdout.startswith("copy.nii: 21x18x13 ")
    given, copy = nib.load(scan), nib.load(tmp_path / "copy.nii")
    np.testing.assert_array_equal(np.asarray(given.dataobj), np.asarray(copy.dataobj))
    for field in ("srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "pixdim", "xyzt_units"):
        assert given.header[field].tobytes() == copy.header[field].tobytes(), field


def test_what_is_stated_of_the_input_is_in_the_copy_and_in_a_warning(
    voxport: Command, scan: Path, tmp_path: Path
) -> None:
    result = voxport("convert", scan, "-o", "copy.nii", "--spacing", "2,2,3", "--unit", "mm", "--json")
    assert result.returncode == 0, result.stderr
    assert "2 x 2 x 3 mm is taken" in result.stderr
    header = nib.load(tmp_path / "copy.nii").header
    np.testing.assert_allclose(header.get_zooms(), (2, 2, 3), rtol=1e-6)
    assert header.get_xyzt_units()[0] == "mm"
    data = json.loads(result.stdout)
    assert (data["output"], data["dtype"], len(data["warnings"])) == ("copy.nii", "uint8", 2)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("-o", "copy.abc"), 2, "-o: expected a name in .nii, .nii.gz,"),
        (("-o", "copy"), 2, "-o: expected a name in .nii, .nii.gz,"),
        (("-o", "scan.nii.gz"), 2, "the place of the input"),
        (("-o", "missing/copy.nii"), 1, "got no such folder"),
        (("-o", "copy.dcm"), 2, "copy.dcm: expected a DICOM series as input, to which a DICOM SEG refers"),
        (("-o", "copy.nii", "--level", "1"), 2, "--level: expected 0, as scan.nii.gz has no other levels"),
        (("-o", "copy.nii", "--series", "a"), 2, "--series: expected none, as scan.nii.gz is one image"),
        (("-o", "copy.nii", "--channel", "3"), 2, "--channel: expected a channel of scan.nii.gz: 0 to 0"),
        (("-o", "copy.nii", "--axes", "ZZ"), 2, "--axes: expected letters of X, Y, Z, C and T"),
        (("-o", "copy.nii", "--spacing", "1,2"), 2, "--spacing: expected three numbers"),
        (("-o", "copy.nii", "--unit", "ft"), 2, "--unit: expected one of nm, um, mm, cm, m, got ft"),
        (("-o", "copy.nii", "--timepoint", "4"), 2, "--timepoint: expected "),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_writes_nothing(
    voxport: Command, scan: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    before = scan.read_bytes()
    result = voxport("convert", scan.name, *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [scan.name]
    assert scan.read_bytes() == before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            np.arange(-5, 1003, dtype=np.int16),
            "copy.seg.nrrd: expected at most 1000 labels, got more values; name it .nrrd",
        ),
        (np.arange(1008, dtype=np.uint16), "copy.seg.nrrd: expected at most 1000 labels, got more values"),
        (
            np.arange(1008, dtype=np.float32),
            "copy.seg.nrrd: expected a label map of one channel, got 1 channels of flo",
        ),
    ],
)
def test_intensities_are_no_segments(voxport: Command, tmp_path: Path, values: np.ndarray, words: str) -> None:
    nib.save(nib.Nifti1Image(values.reshape(12, 12, 7), np.diag([1, 1, 2, 1])), tmp_path / "ct.nii")
    result = voxport("convert", "ct.nii", "-o", "copy.seg.nrrd", "--unit", "mm")
    assert result.returncode == 2
    assert words in result.stderr
    assert not (tmp_path / "copy.seg.nrrd").exists()


def test_inspect_says_where_each_voxel_size_comes_from(voxport: Command, scan: Path) -> None:
    data = json.loads(voxport("inspect", scan, "--json").stdout)
    assert data["format"] == "NIfTI"
    assert data["spacing_sources"] == ["sform"] * 3
    assert (data["channels"], data["dtype"], data["chunk"]) == (1, "uint8", [21, 18, 1])
    shown = voxport("inspect", scan).stdout
    assert "(sform), " in shown
    assert "format    NIfTI\n" in shown


def test_inspect_shows_a_volume_as_it_is_stated(voxport: Command, scan: Path) -> None:
    given = ("--spacing", "2,2,3", "--unit", "mm")
    result = voxport("inspect", scan, *given)
    assert "spacing   x 2 mm (given), y 2 mm (given), z 3 mm (given)" in result.stdout
    assert "2 x 2 x 3 mm is taken" in result.stderr
    data = json.loads(voxport("inspect", scan, *given, "--json").stdout)
    np.testing.assert_allclose(data["spacing"], (2, 2, 3))
    assert (data["unit"], data["spacing_sources"]) == ("mm", ["given"] * 3)
