"""Published DICOM series, which other people's scanners made, read as GDCM (SimpleITK) and dcm2niix read them.

TotalSegmentator's CT has slices of JPEG 2000 and no UIDs of its own. The others come with pydicom.
"""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxport.adapters.volumes.dicom import DicomStore
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Box
from voxport.domain.reading import Reading

pydicom: Any = pytest.importorskip("pydicom")
sitk: Any = pytest.importorskip("SimpleITK")

_THORAX = Path(__file__).parent.parent / "data" / "totalsegmentator-ct.zip"
_FILES = Path(pydicom.__path__[0], "data", "test_files")
_FOLDERS = _FILES / "dicomdirtests"
_HEAD = _FOLDERS / "98892001" / "CT5N"
_SERIES = {
    "CT of 20 slices, JPEG 2000": _THORAX,
    "CT of 5 slices": _HEAD,
    "CT of 1 slice": _FILES / "CT_small.dcm",
    "CT of 1 slice, JPEG 2000": _FILES / "693_J2KI.dcm",
    "MR of 1 slice": _FILES / "MR_small.dcm",
    "MR of 1 slice, RLE": _FILES / "MR_small_RLE.dcm",
    "MR of 1 slice, JPEG-LS": _FILES / "MR_small_jpeg_ls_lossless.dcm",
    "MR of 1 slice, JPEG 2000": _FILES / "MR_small_jp2klossless.dcm",
    "MR of 1 slice, big-endian": _FILES / "MR_small_bigendian.dcm",
}


def series_in(folder: Path, stored: Path) -> Path:
    """Copy a stored series into a new folder."""
    if stored.suffix == ".zip":
        with zipfile.ZipFile(stored) as archive:
            archive.extractall(folder)
    elif stored.is_dir():
        shutil.copytree(stored, folder)
    else:
        folder.mkdir()
        shutil.copy(stored, folder)
    return folder


def read(place: Path, reading: Reading | None = None) -> tuple[Any, Any]:
    """Return values ``(x, y, z)`` and affine as voxport reads them."""
    with DicomStore(place.parent).open(str(place), reading) as source:
        return source.read(Box.whole(source.grid.shape))[0], source.grid.affine


def read_by_gdcm(folder: Path) -> tuple[Any, Any]:
    """Return values ``(x, y, z)`` and affine to RAS+ as SimpleITK reads them."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


def read_by_dcm2niix(folder: Path, scratch: Path) -> tuple[Any, Any]:
    import nibabel

    subprocess.run(["dcm2niix", "-o", str(scratch), str(folder)], check=True, stdout=subprocess.DEVNULL)
    (converted,) = scratch.glob("*.nii")
    image: Any = nibabel.load(converted)
    return np.asanyarray(image.dataobj), image.affine


def assert_same_in_the_world(values: Any, affine: Any, other: Any, other_affine: Any) -> None:
    """Each voxel lies on one of the other's and has its value."""
    assert values.size == other.size
    indices = np.indices(values.shape).reshape(3, -1)
    to_other = np.linalg.inv(other_affine) @ affine
    there = to_other[:3, :3] @ indices + to_other[:3, 3:]
    assert np.abs(there - there.round()).max() < 1e-3
    np.testing.assert_array_equal(values[tuple(indices)], other[tuple(there.round().astype(int))])


@pytest.mark.parametrize("stored", _SERIES.values(), ids=_SERIES)
def test_gdcm_reads_the_same_values_at_the_same_places(tmp_path: Path, stored: Path) -> None:
    folder = series_in(tmp_path / "series", stored)
    assert_same_in_the_world(*read(folder), *read_by_gdcm(folder))


@pytest.mark.parametrize("stored", [stored for name, stored in _SERIES.items() if "JPEG-LS" not in name])
def test_dcm2niix_reads_the_same_values_at_the_same_places(tmp_path: Path, stored: Path) -> None:
    """As Debian builds it, dcm2niix reads no JPEG-LS."""
    folder = series_in(tmp_path / "series", stored)
    assert_same_in_the_world(*read(folder), *read_by_dcm2niix(folder, tmp_path))


def test_a_published_series_reads_the_same_from_its_zip(tmp_path: Path) -> None:
    values, affine = read(_THORAX)
    unpacked, its_affine = read(series_in(tmp_path / "series", _THORAX))
    np.testing.assert_array_equal(values, unpacked)
    np.testing.assert_array_equal(affine, its_affine)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (0.9765625, 0.9765625, 2))


def test_each_of_several_series_in_a_folder_is_read_by_its_name(tmp_path: Path) -> None:
    stored = _FOLDERS / "98892003" / "MR1"
    files = {str(pydicom.dcmread(file).SeriesInstanceUID): file for file in stored.iterdir()}
    assert len(files) == 3
    for uid, file in files.items():
        alone = series_in(tmp_path / uid, file)
        assert_same_in_the_world(*read(stored, Reading(series=uid)), *read_by_gdcm(alone))


def _refused(place: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read(place)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("77654033/CT2", "202.5 mm between slices 18 and 180 at -99.48 and 103.02 mm, 1.25 mm between others"),
        ("98892001/CT2N", "2: "),  # two scouts, of which one is sagittal
        ("98892003/MR1", "3: "),
        ("98892003/MR700", "7: "),  # projections from seven sides
        ("77654033/CR1", "no ImagePositionPatient"),
    ],
)
def test_a_published_folder_that_is_no_one_volume_is_refused_in_one_line(name: str, got: str) -> None:
    assert got in _refused(_FOLDERS / name).got


@pytest.mark.parametrize("stored", [_THORAX, _HEAD], ids=["thorax", "head"])
def test_a_published_series_without_one_slice_or_with_one_twice_is_refused(tmp_path: Path, stored: Path) -> None:
    folder = series_in(tmp_path / "series", stored)
    by_number = {int(pydicom.dcmread(file, stop_before_pixels=True).InstanceNumber): file for file in folder.iterdir()}
    number = sorted(by_number)[2]
    twice = folder / "again"
    shutil.copy(by_number[number], twice)
    assert f"2 slices ({number} and {number}) at one place" in _refused(folder).got
    twice.unlink()
    by_number[number].unlink()
    error = _refused(folder)
    assert "(1 missing)" in error.got
    assert all(str(beside) in error.got for beside in (number - 1, number + 1))


@pytest.mark.parametrize(
    ("name", "depth", "is_noted"),
    [("CT_small.dcm", "SpacingBetweenSlices", False), ("MR_small.dcm", "SliceThickness", True)],
)
def test_one_published_slice_has_a_note_where_its_thickness_stands_for_a_distance(
    tmp_path: Path, name: str, depth: str, is_noted: bool
) -> None:
    folder = series_in(tmp_path / "series", _FILES / name)
    with DicomStore(tmp_path).open(str(folder)) as source:
        assert source.grid.shape[2] == 1
        assert source.spacing_sources[2] == depth
        assert any("one slice" in note and "SliceThickness" in note for note in source.notes) == is_noted
    with DicomStore(tmp_path).open(str(folder), Reading(spacing=(1, 1, 2), unit="mm")) as source:
        assert not any("SliceThickness" in note for note in source.notes)
