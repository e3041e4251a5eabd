"""The NumPy store keeps the reading contract once axes and voxel sizes are stated."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxport.adapters.arrays import ArraySource
from voxport.adapters.volumes.numpy import NumpyStore
from voxport.domain.errors import InputError, LimitError, NoSpaceError, OutputError, VoxportError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.volume_store import VolumeReadingContract

VALUES = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)  # z, y, x
STATED = Reading(spacing=(0.5, 0.25, 2.0), unit="um", axes="ZYX")


class _Stated(NumpyStore):
    """Gives what the format does not state, where a test does not state it."""

    def __init__(self, scratch: Path, stated: dict[str, Reading]) -> None:
        super().__init__(scratch)
        self.stated = stated

    def open(self, reference: str, reading: Reading | None = None) -> ArraySource:
        known, reading = self.stated.get(reference, Reading()), reading or Reading()
        if reading.spacing is None:
            reading = replace(reading, spacing=known.spacing, unit=known.unit)
        return super().open(reference, replace(reading, axes=known.axes))


class _NumpyContract(VolumeReadingContract):
    units = ("mm", "um")
    geometry = "spacing"
    keeps_origin = False
    ending = ".npy"
    order = "C"

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        self.stated: dict[str, Reading] = {}
        return _Stated(self.folder, self.stated)

    def new_reference(self) -> str:
        return str(self.folder / f"volume_{next(self.numbers)}{self.ending}")

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        unit: Any = volume.grid.unit
        self.stated[reference] = Reading(spacing=volume.grid.spacing, unit=unit, axes="CZYX")
        array = np.array(volume.array.transpose(0, 3, 2, 1), order=self.order)  # type: ignore[call-overload]
        self.save(reference, array)
        return reference

    def save(self, reference: str, array: Any) -> None:
        np.save(reference, array)

    def place_foreign(self) -> str:
        reference = self.new_reference()
        with zipfile.ZipFile(reference, "w") as archive:
            archive.writestr("volume.nii", b"not an array")
        return reference


class TestArrays(_NumpyContract):
    pass


class TestFortranOrder(_NumpyContract):
    order = "F"


class TestArchives(_NumpyContract):
    ending = ".npz"

    def save(self, reference: str, array: Any) -> None:
        np.savez_compressed(reference, image=array)


def refused(folder: Path, reference: str | Path, reading: Reading | None = None) -> VoxportError:
    with pytest.raises(VoxportError) as caught:
        NumpyStore(folder).open(str(reference), reading)
    assert "\n" not in str(caught.value)
    return caught.value


def read(folder: Path, reference: str | Path, reading: Reading = STATED) -> Any:
    with NumpyStore(folder).open(str(reference), reading) as source:
        return source.read(Box.whole(source.grid.shape))[0]


def test_axes_and_sizes_are_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    assert "`axes`" in refused(tmp_path, tmp_path / "a.npy").do
    assert "`spacing`" in refused(tmp_path, tmp_path / "a.npy", Reading(axes="ZYX")).do
    np.testing.assert_array_equal(read(tmp_path, tmp_path / "a.npy"), VALUES.T)


@pytest.mark.parametrize(
    ("dtype", "found"), [(bool, "uint8"), (np.float16, "float32"), (np.longdouble, "float64"), (">i4", "int32")]
)
def test_other_numbers_are_read_as_those_that_hold_them(tmp_path: Path, dtype: Any, found: str) -> None:
    values = (VALUES % 2).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    array = read(tmp_path, tmp_path / "a.npy")
    assert array.dtype == found
    np.testing.assert_array_equal(array, values.T.astype(found))


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (VALUES.astype(np.complex64), "complex64"),
        (VALUES.astype(object), "Python objects"),
        (VALUES.astype([("a", "u2")]), "[('a', '<u2')]"),
        (VALUES.astype("U3"), "<U3"),
        (VALUES.astype("datetime64[s]"), "datetime64[s]"),
        (np.arange(3), "1"),
        (np.float32(1), "0"),
        (np.zeros((1,) * 6), "6"),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_arrays_that_are_no_volumes_are_refused(tmp_path: Path, array: Any, got: str, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    np.savez(path, array) if ending == ".npz" else np.save(path, array)
    error = refused(tmp_path, path, STATED)
    assert isinstance(error, InputError)
    assert got in error.got


def test_one_of_several_arrays_is_named(tmp_path: Path) -> None:
    path = tmp_path / "several.npz"
    np.savez(path, raw=VALUES, mask=VALUES > 3)
    error = refused(tmp_path, path, STATED)
    assert (error.expected, error.got) == ("one of the arrays raw, mask", "several")
    assert error.do == "name one with `series`, e.g. raw"
    np.testing.assert_array_equal(read(tmp_path, path, replace(STATED, series="raw")), VALUES.T)
    np.testing.assert_array_equal(read(tmp_path, f"{path}:/mask"), VALUES.T > 3)
    assert refused(tmp_path, f"{path}:/none", STATED).got == "none"
    assert NumpyStore(tmp_path).recognises(f"{path}:/mask")
    assert NumpyStore(tmp_path).places(f"{path}:/mask") == (str(path.resolve()),)


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_a_file_that_is_cut_short_or_damaged_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    np.savez_compressed(path, VALUES) if ending == ".npz" else np.save(path, VALUES)
    content = path.read_bytes()
    for size in (len(content) - 1, 130, 60, 9, 6, 3, 0):
        path.write_bytes(content[:size])
        assert isinstance(refused(tmp_path, path, STATED), InputError), size
    path.write_bytes(content[:100] + b"\xff" * 30 + content[130:])
    if ending == ".npz":
        assert isinstance(refused(tmp_path, path, STATED), InputError)


@pytest.mark.parametrize(
    "text", ["{'shape': (", "{'shape': (4, 5, 'x')}", "[1]", "{" * 5000, "{'shape': (4, -5, 6), 'descr': '<u2'}", "\0"]
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    content = text.encode()
    start = b"\x93NUMPY\x01\0" + len(content).to_bytes(2, "little")
    (tmp_path / "a.npy").write_bytes(start + content + bytes(500))
    assert isinstance(refused(tmp_path, tmp_path / "a.npy", STATED), InputError)


def claiming(shape: tuple[int, ...]) -> bytes:
    """The start of an array that claims a shape."""
    content = BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": "<u2"}
    np.lib.format.write_array_header_1_0(content, header)
    return content.getvalue()


def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    many = (10**6, 10**6, 10**6)
    (tmp_path / "a.npy").write_bytes(claiming(many) + bytes(100))
    assert "bytes, as its header says" in refused(tmp_path, tmp_path / "a.npy", STATED).expected
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("a.npy", claiming(many) + bytes(100))
    assert "bytes, as its header says" in refused(tmp_path, tmp_path / "b.npz", STATED).expected
    np.savez_compressed(tmp_path / "c.npz", np.zeros((100, 100, 100), np.uint8))
    with pytest.raises(LimitError):
        NumpyStore(tmp_path, max_voxels=1000).open(str(tmp_path / "c.npz"), STATED)


def test_a_member_longer_than_its_header_says_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", claiming((2, 2, 2)) + bytes(2**26))
    error = refused(tmp_path, tmp_path / "bomb.npz", STATED)
    assert isinstance(error, InputError)
    assert "beyond" in error.got


def test_no_space_to_unpack_is_an_error_of_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", VALUES)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    assert isinstance(refused(tmp_path, tmp_path / "a.npz", STATED), NoSpaceError)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", VALUES)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.find(b"PK\x03\x04") + 6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert "encrypted" in refused(tmp_path, tmp_path / "a.npz", STATED).got


def test_nothing_is_unpacked_beside_the_archive(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    np.savez_compressed(tmp_path / "a.npz", VALUES)
    with NumpyStore(tmp_path / "scratch").open(str(tmp_path / "a.npz"), STATED):
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npz", "scratch"]


def test_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="read only"):
        NumpyStore(tmp_path).create(str(tmp_path / "a.npy"), Grid((2, 2, 2), np.eye(4), "um"), np.dtype(np.uint8))
