"""Files that are no volumes here are named for what they are, with advice that works when it is followed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.routed import RoutedStore
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Box
from voxport.testing.bad_files import nifti1_header

nib: Any = nibabel
VOLUME = nifti1_header() + bytes(range(120))
VALUES = np.arange(120, dtype=np.uint8).reshape(4, 5, 6, order="F")


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("inside.nii", VOLUME)
    return content.getvalue()


def _tar() -> bytes:
    content, member = io.BytesIO(), tarfile.TarInfo("inside.nii")
    member.size = len(VOLUME)
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(member, io.BytesIO(VOLUME))
    return content.getvalue()


def refusal(folder: Path, name: str) -> InputError:
    with pytest.raises(InputError) as refused:
        RoutedStore(NiftiStore(folder)).open(str(folder / name))
    assert "\n" not in str(refused.value)
    return refused.value


# What files begin with, what they are, and a part of the advice.
STARTS = [
    (b"\x89HDF\r\n\x1a\n" + bytes(98) + b"minc-2.0", "a MINC file", "nibabel.load("),
    (b"\x89HDF\r\n\x1a\n" + bytes(712) + b"minc-2.0", "a MINC file", "nibabel.load("),
    (b"CDF\x01" + bytes(20), "a netCDF or MINC file", "nibabel.load("),
    (b"\x28\xb5\x2f\xfd" + bytes(20), "packed with Zstandard", "zstd -dc"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS", "git lfs pull"),
    (b"/annex/objects/SHA256E-s1--1.nii.gz\n", "a pointer of git-annex", "git annex get"),
    (b"\n<!DOCTYPE html><html><head>", "a web page", "login"),
    (b"<HTML><body>404</body>", "a web page", "download the volume itself"),
    (b"<?xml version='1.0'?><a/>", "an XML file", "give the volume"),
    (b"\x89PNG\r\n\x1a\n" + bytes(600), "a PNG picture", "stack pictures"),
    (b"\xff\xd8\xff\xe0" + bytes(600), "a JPEG picture", "stack pictures"),
    (b"%PDF-1.7", "a PDF document", "give the volume"),
]
ARCHIVES = [
    (bz2.compress(VOLUME), "packed with bzip2", "bzip2 -dc"),
    (lzma.compress(VOLUME), "packed with xz", "xz -dc"),
    (gzip.compress(gzip.compress(VOLUME)), "packed with gzip twice", "gzip -dc"),
    (_zip(), "a zip archive", "unzip"),
    (_tar(), "a tar archive", "tar xf"),
]
FOREIGN = STARTS + ARCHIVES


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.odd"])
@pytest.mark.parametrize(("start", "what", "helps"), STARTS)
def test_content_is_named_whatever_the_name(tmp_path: Path, name: str, start: bytes, what: str, helps: str) -> None:
    (tmp_path / name).write_bytes(start)
    error = refusal(tmp_path, name)
    assert error.subject == name
    assert error.expected in ("a volume in a format that is read, such as NIfTI", "DICOM images")
    assert what in error.got
    assert helps in error.do


@pytest.mark.parametrize("name", ["scan.nii", "a scan.nii.gz", "scan.odd"])
@pytest.mark.parametrize(("content", "what", "tool"), ARCHIVES)
def test_an_archive_unpacked_as_advised_is_read(
    tmp_path: Path, name: str, content: bytes, what: str, tool: str
) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path, name)
    assert what in error.got
    if shutil.which(tool.split()[0]) is None:
        assert tool in error.do
        return
    subprocess.run(error.do.split(": ", 1)[1], shell=True, check=True, cwd=tmp_path, capture_output=True)
    (made,) = (path for path in tmp_path.iterdir() if path.name != name)
    with RoutedStore(NiftiStore(tmp_path)).open(str(made)) as source:
        np.testing.assert_array_equal(source.read(Box.whole((4, 5, 6)))[0], VALUES)


def test_a_link_to_a_missing_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a scan.nii.gz").symlink_to(".git/annex/objects/a")
    error = refusal(tmp_path, "a scan.nii.gz")
    assert error.got == "a link to .git/annex/objects/a, which is missing"
    assert error.do == "fetch it: git annex get 'a scan.nii.gz'"


def _analyze(folder: Path) -> str:
    nib.save(nib.AnalyzeImage(VALUES, None), folder / "old.img")
    return "old.hdr"


@pytest.mark.parametrize(("made", "what"), [(_analyze, "Analyze 7.5")])
def test_a_conversion_as_advised_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], str], what: str
) -> None:
    name = made(tmp_path)
    error = refusal(tmp_path, name)
    assert what in error.got
    code = error.do[error.do.index(" = ") - 1 :]
    fills = {"SX": "2", "SY": "3", "SZ": "4", "AFFINE": "numpy.diag([2, 3, 4, 1])", "NEW_FILE": "'new.nii.gz'"}
    for gap, value in (fills | {"(FILE)": f"('{name}')"}).items():
        code = code.replace(gap, value)
    monkeypatch.chdir(tmp_path)
    exec(code, {"nibabel": nib, "numpy": np})
    (converted,) = tmp_path.glob("*.nii.gz")
    with RoutedStore(NiftiStore(tmp_path)).open(str(converted)) as source:
        np.testing.assert_array_equal(source.read(Box.whole((4, 5, 6)))[0], VALUES)
        np.testing.assert_allclose(source.grid.spacing, (2, 3, 4))


@pytest.mark.parametrize(
    ("entry", "content", "what", "helps"),
    [
        (".zattrs", b"{}", "an OME-Zarr folder without an image of its own", "plate.zarr/A/1/0"),
        ("zarr.json", b"{}", "an OME-Zarr folder without an image of its own", "plate.zarr/A/1/0"),
        ("a.nii.gz", gzip.compress(VOLUME), "a folder of volumes", "voxport batch"),
        ("notes.txt", b"text", "a folder", "name the volume itself"),
    ],
)
def test_a_folder_is_named_for_what_is_in_it(tmp_path: Path, entry: str, content: bytes, what: str, helps: str) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / entry).write_bytes(content)
    error = refusal(tmp_path, "case")
    assert error.got == what
    assert helps in error.do


# Headers


@pytest.mark.parametrize("code", sorted({int(code) for code in nib.nifti1.intent_codes.code.values()}))
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 2)])
def test_no_result_inherits_the_intent_of_the_scan(tmp_path: Path, code: int, shape: tuple[int, ...]) -> None:
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4))
    image.header["intent_code"], image.header["intent_p1"], image.header["intent_name"] = code, 7, b"name"
    nib.save(image, tmp_path / "scan.nii")
    store = NiftiStore(tmp_path)
    with store.open(str(tmp_path / "scan.nii")) as source:
        for name, dtype, channels in (("mask.nii", np.uint8, 1), ("probabilities.nii", np.float32, 3)):
            with store.create(
                str(tmp_path / name), source.grid, np.dtype(dtype), channels=channels, like=source
            ) as sink:
                sink.commit()
            written = nib.load(tmp_path / name)
            assert written.header.get_intent() == ("none", (), "")
            assert written.shape == ((4, 5, 6) if channels == 1 else (4, 5, 6, 3))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("excess", [1e-8, 1e-7, 4e-7, 1e-6, 1e-5])
def test_a_quaternion_a_little_longer_than_one_is_a_half_turn(tmp_path: Path, axis: int, excess: float) -> None:
    quaternion = np.zeros(3, np.float32)
    quaternion[axis] = 1 + excess
    image = nib.Nifti1Image(VALUES, None)
    image.header["qform_code"] = 1
    for name, value in zip(("quatern_b", "quatern_c", "quatern_d"), quaternion, strict=True):
        image.header[name] = value
    nib.save(image, tmp_path / "a.nii")
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        expected = np.diag([1.0 if a == axis else -1.0 for a in range(3)])
        np.testing.assert_allclose(source.grid.affine[:3, :3], expected, atol=1e-6)


@pytest.mark.parametrize(("zoom", "noted"), [(1.0, False), (1.0005, False), (1.01, True), (3.0, True)])
def test_voxel_sizes_that_contradict_the_sform_are_noted_without_a_qform(
    tmp_path: Path, zoom: float, noted: bool
) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header(pixdim=(1, 1, 1, zoom, 1, 1, 1, 1)) + bytes(120))
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert any("pixdim" in note for note in source.notes) == noted
        assert source.grid.spacing == (1.0, 1.0, 1.0)


def test_a_scaling_beyond_single_precision_keeps_its_values(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header(scaling=(1e37, 0.0)) + bytes(range(120)))
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert source.read(Box.whole((4, 5, 6))).max() == pytest.approx(119e37)
