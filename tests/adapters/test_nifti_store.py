"""The NIfTI store keeps the volume store's contract; here nibabel is the witness."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import math
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.nifti.source import NiftiSource
from voxport.domain.errors import InputError, LimitError, NoSpaceError, OutputError, VoxportError
from voxport.domain.geometry.grid import Box, Grid, shape3
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.bad_files import bad_nifti_files, nifti1_header
from voxport.testing.strategies import DTYPES
from voxport.testing.volume_store import VolumeStoreContract

nib: Any = nibabel  # which is typed only in parts
sitk: Any = SimpleITK
_NIBABEL_UNITS = {"mm": "mm", "um": "micron", "unknown": "unknown"}


class _NiftiContract(VolumeStoreContract):
    suffix: str

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        return NiftiStore(self.folder)

    def new_reference(self) -> str:
        return str(self.folder / f"volume_{next(self.numbers)}{self.suffix}")

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        array = np.moveaxis(volume.array, 0, 3)
        kind = nib.Nifti1Pair if self.suffix in (".hdr", ".img") else nib.Nifti1Image
        image = kind(array if volume.channels > 1 else array[..., 0], volume.grid.affine, dtype=array.dtype)
        image.header.set_xyzt_units(_NIBABEL_UNITS[volume.grid.unit])
        nib.save(image, reference)
        return reference

    def peek(self, reference: str) -> Volume | None:
        try:
            image = nib.load(reference)
        except FileNotFoundError:
            return None
        stored = np.asanyarray(image.dataobj)
        unit = {name: own for own, name in _NIBABEL_UNITS.items()}[image.header.get_xyzt_units()[0]]
        grid = Grid(shape3(stored.shape[:3]), image.affine, unit)
        return Volume(np.moveaxis(stored.reshape(*grid.shape, -1), 3, 0), grid)

    def occupied(self) -> set[str]:
        return {str(path.resolve()) for path in self.folder.rglob("*")}

    def place_foreign(self) -> str:
        reference = self.new_reference()
        Path(reference).write_bytes(b"not a volume" * 100)
        return reference


class TestPlainFiles(_NiftiContract):
    suffix = ".nii"


class TestCompressedFiles(_NiftiContract):
    suffix = ".nii.gz"


class TestPairsByHeader(_NiftiContract):
    suffix = ".hdr"


class TestPairsByImage(_NiftiContract):
    suffix = ".img"


# What cannot be read


def test_every_bad_file_is_refused_in_one_line(tmp_path: Path) -> None:
    store = NiftiStore(tmp_path)
    for fault, path in bad_nifti_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            store.open(str(path))
        assert str(caught.value).startswith(f"{path.name}: expected "), fault
        assert "\n" not in str(caught.value), fault


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("empty file", "an empty file"),
        ("text named gz", "got text"),
        ("Analyze 7.5", "does not state the orientation"),
        ("truncated", "expected 472 bytes, as its header says, got 471"),
        ("truncated gz", "cut short"),
        ("gz with a wrong checksum", "CRC"),
        ("10^12 voxels claimed", "expected 1000000000352 bytes"),
        ("10^12 voxels claimed, gz", "expected 1000000000352 bytes"),
        ("1-D", "got 1-D (120)"),
        ("4-D with components", "choose one with `timepoint`"),
        ("6-D", "got 6-D"),
        ("complex64", "complex64"),
        ("RGB", "RGB"),
        ("zero zoom", "1 x 0 x 1"),
        ("negative zoom", "1 x 1 x -2"),
        ("no qform and no sform", "no qform and no sform"),
        ("singular sform", "singular"),
        ("NaN in the sform", "not finite"),
        ("metres", "metres"),
        ("missing file", "no such file"),
        ("a folder", "a folder"),
        ("hdr without img", ".img beside it"),
        ("img without hdr", ".hdr beside it"),
    ],
)
def test_a_refusal_names_the_fault(fault: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        NiftiStore(tmp_path).open(str(bad_nifti_files(tmp_path)[fault]))
    assert words in str(caught.value)


def test_a_header_that_is_good_but_for_its_faults_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "good.nii"
    path.write_bytes(nifti1_header() + bytes(range(120)))
    with NiftiStore(tmp_path).open(str(path)) as source:
        assert source.grid == Grid((4, 5, 6), np.eye(4), "mm")
        assert source.read(Box((1, 2, 3), (2, 3, 4))).item() == 1 + 4 * (2 + 5 * 3)


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(InputError, match="not a regular file"):
        NiftiStore(tmp_path).open(str(tmp_path / "pipe.nii"))


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.nii"
    path.write_bytes(nifti1_header() + bytes(120))

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # chmod does not stop root, who runs the tests in containers
    with pytest.raises(InputError, match="no permission"):
        NiftiStore(tmp_path).open(str(path))


def test_more_voxels_than_the_limit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    for name, pack in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(nifti1_header() + bytes(120)))
        with pytest.raises(LimitError, match="at most 119 voxels, got 120"):
            NiftiStore(tmp_path, max_voxels=119).open(str(tmp_path / name))
        NiftiStore(tmp_path, max_voxels=120).open(str(tmp_path / name)).close()


def test_a_scratch_folder_that_is_missing_is_a_limit_error(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti1_header() + bytes(120)))
    with pytest.raises(LimitError, match="scratch"):
        NiftiStore(tmp_path / "none").open(str(tmp_path / "a.nii.gz"))


@pytest.mark.parametrize(("blocks", "waits"), [(1000, True), (400, False)])
def test_a_full_scratch_disk_is_told_from_one_that_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, waits: bool
) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti1_header() + bytes(120)))
    disk = SimpleNamespace(f_frsize=1, f_bavail=99, f_blocks=blocks)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    with pytest.raises(LimitError, match="room for") as refused:
        NiftiStore(tmp_path).open(str(tmp_path / "a.nii.gz"))
    assert isinstance(refused.value, NoSpaceError) == waits


def test_nothing_is_left_in_the_scratch_folder(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti1_header() + bytes(120)))
    with NiftiStore(scratch).open(str(tmp_path / "a.nii.gz")):
        assert list(scratch.iterdir()) == []


_fuzz = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _opens_or_is_refused(path: Path) -> None:
    try:
        source = NiftiStore(path.parent, max_voxels=10**6).open(str(path))
    except VoxportError:
        return
    with source:
        values = source.read(Box.whole(source.grid.shape))
        assert values.shape == (source.channels, *source.grid.shape)
        assert values.dtype == source.dtype


@_fuzz
@given(content=st.binary(max_size=700), start=st.sampled_from([b"", b"\x1f\x8b\x08", nifti1_header()[:300]]))
def test_random_bytes_never_end_in_a_traceback(content: bytes, start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzz.nii"
    path.write_bytes(start + content)
    _opens_or_is_refused(path)


@_fuzz
@given(data=st.data(), is_second=st.booleans(), order=st.sampled_from(["<", ">"]), packed=st.booleans())
def test_mutated_headers_never_end_in_a_traceback(
    data: st.DataObject, is_second: bool, order: str, packed: bool, tmp_path: Path
) -> None:
    if is_second:
        fields = nib.Nifti2Header(endianness=order)
        fields.set_data_shape((4, 5, 6))
        fields.set_sform(np.eye(4), 1)
        fields["vox_offset"] = 544
        block = bytearray(fields.binaryblock) + bytes(4)
    else:
        block = bytearray(nifti1_header(order=order))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(4, len(block) - 12))
        chunk = data.draw(
            st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xc0\0\0", b"\0\0\x80\x7f"]) | st.binary(max_size=8)
        )
        block[position : position + len(chunk)] = chunk
    path = tmp_path / "fuzz.nii"
    content = bytes(block) + bytes(960)
    path.write_bytes(gzip.compress(content) if packed else content)
    _opens_or_is_refused(path)


@_fuzz
@given(keep=st.integers(0, 471), packed=st.booleans())
def test_truncations_are_always_refused(keep: int, packed: bool, tmp_path: Path) -> None:
    content = nifti1_header() + bytes((i * i * 31 + i * 7) % 251 for i in range(120))
    stored = gzip.compress(content, mtime=0) if packed else content
    path = tmp_path / "cut.nii"
    path.write_bytes(stored[: min(keep, len(stored) - 1)])
    with pytest.raises(InputError):
        NiftiStore(tmp_path).open(str(path))


# What can be read


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_real_type_reads_in_native_order(dtype: str, order: str, tmp_path: Path) -> None:
    values = (np.arange(24).reshape(2, 3, 4) % 100).astype(np.dtype(dtype))
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(values, np.eye(4), header), tmp_path / "a.nii")
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert source.dtype == np.dtype(dtype)
        assert source.read(Box.whole((2, 3, 4))).dtype.isnative
        np.testing.assert_array_equal(source.read(Box.whole((2, 3, 4)))[0], values)


def _quad(value: float, order: str) -> bytes:
    """IEEE 754's binary128 of a number that is not subnormal, byte by byte."""
    if not math.isfinite(value) or value == 0:
        exponent, fraction = (0x7FFF if value else 0), int(math.isnan(value)) << 111
    else:
        mantissa, power = math.frexp(abs(value))
        exponent, fraction = power - 1 + 16383, (int(mantissa * 2**53) << 60) - 2**112
    bits = (int(math.copysign(1, value) < 0) << 127) | (exponent << 112) | fraction
    return bits.to_bytes(16, "little" if order == "<" else "big")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_float128_is_read_as_float64_with_a_note(order: str, tmp_path: Path) -> None:
    some = [0.0, -1.0, math.pi, -1e300, 2.5e-300, math.inf, -math.inf, math.nan, 1 / 3, 65536.0]
    values = np.resize(some, 120)
    voxels = b"".join(_quad(value, order) for value in values.tolist())
    (tmp_path / "a.nii").write_bytes(nifti1_header(datatype=1536, bits=128, order=order) + voxels)
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert source.dtype == np.float64
        assert "64 bits" in source.notes[0]
        found = source.read(Box.whole((4, 5, 6)))[0]
        np.testing.assert_array_equal(found, values.reshape((4, 5, 6), order="F"))
        box = Box((1, 2, 3), (3, 4, 5))
        np.testing.assert_array_equal(source.read(box)[0], found[box.slices])


def test_a_float128_beyond_double_precision_is_infinite_or_zero(tmp_path: Path) -> None:
    quads = [(0x7FFE << 112).to_bytes(16, "little"), (1 << 112).to_bytes(16, "little")]
    (tmp_path / "a.nii").write_bytes(nifti1_header(datatype=1536, bits=128) + b"".join(quads * 60))
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert set(np.unique(source.read(Box.whole((4, 5, 6))))) == {0.0, math.inf}


def test_the_long_doubles_of_intel_are_refused(tmp_path: Path) -> None:
    extended = b"".join((2**63 + number).to_bytes(8, "little") + b"\xff\x3f" + b"garbag" for number in range(120))
    (tmp_path / "a.nii").write_bytes(nifti1_header(datatype=1536, bits=128) + extended)
    with pytest.raises(InputError, match="Intel's 80-bit"):
        NiftiStore(tmp_path).open(str(tmp_path / "a.nii"))


# Vectors, images of two axes, and what the user states


def _opened(path: Path, reading: Reading | None = None) -> tuple[NiftiSource, Any]:
    with NiftiStore(path.parent).open(str(path), reading) as source:
        return source, source.read(Box.whole(source.grid.shape))


@pytest.mark.parametrize("packed", [False, True])
def test_vectors_as_simpleitk_writes_them_are_channels(packed: bool, tmp_path: Path) -> None:
    values = np.arange(120, dtype=np.float32).reshape(4, 3, 2, 5)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(path))
    source, found = _opened(path)
    assert nib.Nifti1Header.from_fileobj(io.BytesIO(_head(path)))["dim"][0] == 5
    assert source.channels == 5
    np.testing.assert_array_equal(found, values.T)
    np.testing.assert_array_equal(_opened(path, Reading(channel="3"))[1][0], values[..., 3].T)


def _head(path: Path) -> bytes:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content)[:348]


@pytest.mark.parametrize("intent", [0, 1007])
def test_a_fifth_axis_is_the_channel_whatever_the_intent(intent: int, tmp_path: Path) -> None:
    values = np.arange(240, dtype=np.int16).reshape(4, 5, 2, 1, 6)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header["intent_code"] = intent
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(_opened(tmp_path / "a.nii")[1], np.moveaxis(values[:, :, :, 0], 3, 0))


def test_time_and_channels_are_told_apart_by_their_axes(tmp_path: Path) -> None:
    values = np.arange(240, dtype=np.int16).reshape(4, 5, 2, 3, 2)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "five.nii")
    nib.save(nib.Nifti1Image(values[..., 0], np.eye(4)), tmp_path / "four.nii")
    _, found = _opened(tmp_path / "five.nii", Reading(timepoint=2))
    np.testing.assert_array_equal(found, np.moveaxis(values[:, :, :, 2], 3, 0))
    assert _opened(tmp_path / "four.nii")[0].channels == 3
    _, found = _opened(tmp_path / "four.nii", Reading(axes="XYZT", timepoint=1))
    np.testing.assert_array_equal(found[0], values[..., 1, 0])
    _, found = _opened(tmp_path / "four.nii", Reading(channel="2,0"))
    np.testing.assert_array_equal(found, np.moveaxis(values[..., [2, 0], 0], 3, 0))
    with pytest.raises(InputError, match="`timepoint`"):
        _opened(tmp_path / "four.nii", Reading(axes="XYZT"))


@pytest.mark.parametrize(("axes", "slowest"), [("XYZ", 2), ("ZYX", 0), ("ZXY", 1)])
def test_axes_of_the_user_turn_the_array_with_its_affine(axes: str, slowest: int, tmp_path: Path) -> None:
    values = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "a.nii")
    source, found = _opened(tmp_path / "a.nii", Reading(axes=axes))
    order = [axes.index(letter) for letter in "XYZ"]
    np.testing.assert_array_equal(found[0], values.transpose(order))
    np.testing.assert_array_equal(source.grid.affine[:, :3], affine[:, order])
    assert source.slowest_axis == slowest


@pytest.mark.parametrize("library", ["nibabel", "SimpleITK"])
def test_an_image_of_two_axes_is_one_slice(library: str, tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    if library == "nibabel":
        nib.save(nib.Nifti1Image(values, np.diag([0.5, 0.25, 2.0, 1.0])), tmp_path / "a.nii")
    else:
        image = sitk.GetImageFromArray(values.T)
        image.SetSpacing((0.5, 0.25))
        sitk.WriteImage(image, str(tmp_path / "a.nii"))
    source, found = _opened(tmp_path / "a.nii")
    assert source.grid.shape == (4, 3, 1)
    assert source.grid.spacing == (0.5, 0.25, 2.0 if library == "nibabel" else 1.0)
    np.testing.assert_array_equal(found[0, ..., 0], values)


ROWS = (0.5, 0.0, 0.0, 7.0, 0.0, -0.25, 0.0, 8.0, 0.0, 0.0, 0.0, 9.0)


def test_a_slice_whose_thickness_is_not_stated_asks_for_it(tmp_path: Path) -> None:
    header = nifti1_header((2, 10, 12, 1, 1, 1, 1, 1), pixdim=(1, 0.5, 0.25, 0, 0, 0, 0, 0), sform_rows=ROWS)
    (tmp_path / "a.nii").write_bytes(header + bytes(120))
    with pytest.raises(InputError, match="a voxel size along z"):
        _opened(tmp_path / "a.nii")
    source, _ = _opened(tmp_path / "a.nii", Reading(spacing=(0.5, 0.25, 2.0)))
    np.testing.assert_array_equal(source.grid.affine, [[0.5, 0, 0, 7], [0, -0.25, 0, 8], [0, 0, -2, 9], [0, 0, 0, 1]])


UNUSABLE: dict[str, dict[str, Any]] = {
    "no codes": {"sform_code": 0},
    "pixdim of 0 beside an sform": {"pixdim": (1, 1, 0, 1, 1, 1, 1, 1)},
    "negative pixdim beside an sform": {"pixdim": (1, 1, 1, -2, 1, 1, 1, 1)},
    "pixdim of 0 beside a qform": {"sform_code": 0, "qform_code": 1, "pixdim": (1, 0, 0, 0, 0, 0, 0, 0)},
    "pixdim of NaN beside a qform": {"sform_code": 0, "qform_code": 1, "pixdim": (1, 1, math.nan, 1, 0, 0, 0, 0)},
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_voxel_sizes_of_the_user_mend_a_header_without_usable_ones(fault: str, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header(**UNUSABLE[fault]) + bytes(range(120)))
    with pytest.raises(InputError, match="`spacing`"):
        _opened(tmp_path / "a.nii")
    reading = Reading(spacing=(0.5, 0.25, 2.0), unit="um")
    source, found = _opened(tmp_path / "a.nii", reading)
    assert source.grid == Grid((4, 5, 6), np.diag([0.5, 0.25, 2.0, 1.0]), "um")
    assert source.spacing_sources == ("given", "given", "given")
    with NiftiStore(tmp_path).create(
        str(tmp_path / "mask.nii.gz"), source.grid, np.dtype(np.uint8), like=source
    ) as sink:
        sink.commit()
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(written.affine, source.grid.affine)
    assert written.header.get_zooms() == (0.5, 0.25, 2.0)
    assert written.header.get_xyzt_units()[0] == "micron"
    assert _opened(tmp_path / "mask.nii.gz")[0].grid == source.grid
    np.testing.assert_array_equal(found[0].ravel("F"), range(120))


def test_a_mask_has_the_voxel_sizes_that_the_user_states_and_otherwise_the_bits_of_the_header(tmp_path: Path) -> None:
    affine = np.array([[0, -0.5, 0, 7], [0.25, 0, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1]], dtype=np.float64)
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    image.set_qform(affine @ np.diag([1, 1, 1.01, 1]), 3)
    nib.save(image, tmp_path / "a.nii")
    store = NiftiStore(tmp_path)
    for reading, spacing in ((None, (0.25, 0.5, 2.0)), (Reading(spacing=(1.0, 2.0, 3.0), unit="um"), (1.0, 2.0, 3.0))):
        source, _ = _opened(tmp_path / "a.nii", reading)
        with store.create(str(tmp_path / "mask.nii"), source.grid, np.dtype(np.uint8), like=source) as sink:
            sink.commit()
        header = nib.load(tmp_path / "mask.nii").header
        assert _opened(tmp_path / "mask.nii")[0].grid == source.grid
        assert source.grid.spacing == spacing
        assert int(header["qform_code"]) == (3 if reading is None else 0)


@pytest.mark.parametrize(
    ("stored", "real"),
    [
        *(("uint8", "float32"), ("int16", "float32"), ("uint16", "float32"), ("float32", "float32")),
        *(("int32", "float64"), ("uint64", "float64"), ("float64", "float64")),
    ],
)
def test_scaled_values_are_real_ones(stored: str, real: str, tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(stored)
    image = nib.Nifti1Image(values, np.eye(4), dtype=values.dtype)
    image.header.set_slope_inter(0.25, -1024)
    nib.save(image, tmp_path / "a.nii")
    # nibabel rescales what it saves: put the scaling, and the plain values, into the file itself.
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = struct.pack("<2f", 0.25, -1024)
    content[352:] = values.tobytes("F")
    (tmp_path / "a.nii").write_bytes(content)
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert source.dtype == np.dtype(real)
        np.testing.assert_array_equal(source.read(Box.whole((2, 3, 4)))[0], values * 0.25 - 1024)


@pytest.mark.parametrize("scaling", [(0.0, 5.0), (math.nan, 5.0), (math.inf, 0.0), (1.0, 0.0)])
def test_a_neutral_scaling_leaves_the_stored_type(scaling: tuple[float, float], tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header(scaling=scaling) + bytes(range(120)))
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert source.dtype == np.uint8
        assert source.read(Box.whole((4, 5, 6))).max() == 119


def test_a_slope_that_single_precision_cannot_hold_is_not_lost(tmp_path: Path) -> None:
    image = nib.Nifti2Image(np.full((2, 2, 2), 3, np.uint8), np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[176:192] = struct.pack("<2d", 1e-60, 0.0)
    (tmp_path / "a.nii").write_bytes(content)
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert source.read(Box.whole((2, 2, 2))).ravel()[0] == pytest.approx(3e-60)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("packed", [False, True])
def test_every_container_reads_alike(kind: Any, order: str, packed: bool, tmp_path: Path) -> None:
    values = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    names = ("a.hdr", "a.img") if "Pair" in kind.__name__ else ("a.nii",)
    nib.save(kind(values, affine, header), tmp_path / (names[0] + ".gz" * packed))
    for name in names:
        with NiftiStore(tmp_path).open(str(tmp_path / (name + ".gz" * packed))) as source:
            assert source.grid.shape == (4, 5, 6)
            np.testing.assert_array_equal(source.grid.affine, affine)
            np.testing.assert_array_equal(source.read(Box.whole((4, 5, 6)))[0], values)
            stored = b"".join((tmp_path / (n + ".gz" * packed)).read_bytes() for n in names)
            assert source.sha256() == hashlib.sha256(stored).hexdigest()


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    content = nifti1_header() + bytes(range(120))
    (tmp_path / "plain.nii.gz").write_bytes(content)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(content))
    (tmp_path / "single.img").write_bytes(content)
    (tmp_path / "no suffix").write_bytes(content)
    for path in sorted(tmp_path.iterdir()):
        with NiftiStore(tmp_path).open(str(path)) as source:
            assert source.read(Box.whole((4, 5, 6))).max() == 119


def test_extensions_before_the_voxels_are_passed_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"some words about the volume"))
    nib.save(image, tmp_path / "a.nii")
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        np.testing.assert_array_equal(source.read(Box.whole((2, 3, 4)))[0], image.dataobj)


@pytest.mark.parametrize("dim", [(5, 4, 5, 6, 1, 1, 1, 1), (7, 4, 5, 6, 1, 1, 1, 1), (4, 4, 5, 6, 1, 1, 1, 1)])
def test_trailing_axes_of_one_are_no_dimensions(dim: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header(dim) + bytes(120))
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert (source.channels, source.grid.shape) == (1, (4, 5, 6))


@pytest.mark.parametrize(("code", "unit"), [(0, "unknown"), (2, "mm"), (3, "um"), (2 | 8, "mm"), (5, "unknown")])
def test_the_spatial_unit_is_read(code: int, unit: str, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header(units=code) + bytes(120))
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        assert source.grid.unit == unit
        assert bool(source.notes) == (code == 5)


def test_the_sform_goes_before_the_qform_and_disagreement_is_noted(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    other = np.diag([2.0, 2.0, 2.0, 1.0])
    for shift, notes in ((0.0, 0), (0.001, 0), (0.01, 1)):
        other[0, 3] = shift
        image.set_qform(other, 1)
        nib.save(image, tmp_path / "a.nii")
        with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
            np.testing.assert_array_equal(source.grid.affine, image.affine)
            assert len(source.notes) == notes


@pytest.mark.parametrize("qfac", [-1.0, 0.0, 1.0])
def test_the_qform_alone_places_a_volume_as_nibabel_does(qfac: float, tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 6], [0, 0, -3.0 if qfac < 0 else 3.0, 7], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), None)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[76:80] = struct.pack("<f", qfac)
    (tmp_path / "a.nii").write_bytes(content)
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
        np.testing.assert_allclose(source.grid.affine, affine, atol=1e-6)
        if qfac:
            np.testing.assert_array_equal(source.grid.affine, nib.load(tmp_path / "a.nii").affine)


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path: Path) -> None:
    content = bytearray(nifti1_header(sform_code=0, qform_code=1) + bytes(120))
    content[256:268] = struct.pack("<3f", 3.0, 0.0, 0.0)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match="no rotation"):
        NiftiStore(tmp_path).open(str(tmp_path / "a.nii"))


def test_the_48_orientations_are_told_apart(tmp_path: Path) -> None:
    seen = set()
    for codes in nib_orientations():
        transform = nib.orientations.axcodes2ornt(codes)
        affine = nib.orientations.inv_ornt_aff(transform, (4, 5, 6))
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), affine), tmp_path / "a.nii")
        with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source:
            assert source.grid.axis_codes == "".join(nib.aff2axcodes(affine))
            seen.add(source.grid.axis_codes)
    assert len(seen) == 48


def nib_orientations() -> list[tuple[str, ...]]:
    return [letters for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]


def test_closed_sources_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header() + bytes(120))
    source = NiftiStore(tmp_path).open(str(tmp_path / "a.nii"))
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.read(Box.whole((4, 5, 6)))
    with pytest.raises(ValueError, match="closed"):
        source.sha256()


def test_a_box_beyond_the_grid_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header() + bytes(120))
    with NiftiStore(tmp_path).open(str(tmp_path / "a.nii")) as source, pytest.raises(ValueError, match="box"):
        source.read(Box((0, 0, 0), (4, 5, 7)))


# What is written


_PLACE = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 4), (0, 2), (3, 0), (1, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr"])
def test_like_keeps_every_field_of_the_place_bit_for_bit(
    kind: Any, order: str, codes: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    affine = np.array([[0.1, -0.7, 0.013, 5.3], [0.9, 0.17, 0.3, -6.1], [0.2, 0.031, -3.3, 7.7], [0, 0, 0, 1]])
    image = kind(np.zeros((4, 5, 6), np.int16), affine, kind.header_class(endianness=order))
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units("micron", "sec")
    image.header.set_intent("t test", (7.0,), "some name")
    nib.save(image, tmp_path / "in.nii")
    stored, store = nib.load(tmp_path / "in.nii").header, NiftiStore(tmp_path)
    with (
        store.open(str(tmp_path / "in.nii")) as source,
        store.create(str(tmp_path / f"out{suffix}"), source.grid, np.dtype(np.uint8), like=source) as sink,
    ):
        sink.commit()
    written = nib.load(tmp_path / f"out{suffix}").header
    for name in _PLACE:
        np.testing.assert_array_equal(written[name], stored[name], err_msg=name)
    np.testing.assert_array_equal(written["pixdim"][:4], stored["pixdim"][:4])
    assert written["sizeof_hdr"] == stored["sizeof_hdr"]
    assert written.get_xyzt_units() == ("micron", "unknown")
    assert written.get_slope_inter() == (None, None)
    assert written["descrip"].item() == b"voxport"


def test_a_source_of_another_store_gives_its_grid(tmp_path: Path) -> None:
    grid = Grid((2, 3, 4), np.diag([1.0, 2.0, 3.0, 1.0]), "um")
    memory = MemoryStore()
    memory.put("a", Volume(np.zeros((2, 3, 4), np.uint8), grid))
    with (
        memory.open("a") as source,
        NiftiStore(tmp_path).create(str(tmp_path / "a.nii"), grid, source.dtype, like=source) as sink,
    ):
        sink.commit()
    header = nib.load(tmp_path / "a.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 0)
    np.testing.assert_array_equal(header.get_sform(), grid.affine)
    assert header.get_zooms() == (1.0, 2.0, 3.0)


def test_like_on_another_grid_is_a_programming_error(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti1_header() + bytes(120))
    store = NiftiStore(tmp_path)
    other = Grid((4, 5, 6), np.diag([2.0, 1.0, 1.0, 1.0]), "mm")
    with store.open(str(tmp_path / "a.nii")) as source, pytest.raises(ValueError, match="same grid"):
        store.create(str(tmp_path / "b.nii"), other, np.dtype(np.uint8), like=source)


@pytest.mark.parametrize(
    ("shape", "shift", "size"),
    [((4, 5, 6), 0.0, 348), ((32767, 1, 1), 0.0, 348), ((32768, 1, 1), 0.0, 540), ((4, 5, 6), 1e7 + 1 / 3, 540)],
)
def test_nifti_2_is_written_where_nifti_1_cannot_hold_it(
    shape: tuple[int, int, int], shift: float, size: int, tmp_path: Path
) -> None:
    affine = np.eye(4)
    affine[0, 3] = shift
    grid = Grid(shape, affine, "um")
    for suffix in (".nii", ".hdr"):
        with NiftiStore(tmp_path).create(str(tmp_path / f"a{suffix}"), grid, np.dtype(np.uint8)) as sink:
            sink.commit()
        image = nib.load(tmp_path / f"a{suffix}")
        assert image.header["sizeof_hdr"] == size
        assert image.shape == shape
        np.testing.assert_array_equal(image.affine, affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_same_volume_is_the_same_file(suffix: str, tmp_path: Path) -> None:
    grid = Grid((7, 8, 9), np.eye(4), "mm")
    contents = set()
    for name in ("a", "b"):
        with NiftiStore(tmp_path).create(str(tmp_path / f"{name}{suffix}"), grid, np.dtype(np.uint16)) as sink:
            sink.write(Box.whole(grid.shape), np.arange(504, dtype=np.uint16).reshape(grid.shape))
            sink.commit()
        contents.add((tmp_path / f"{name}{suffix}").read_bytes())
    assert len(contents) == 1
    if suffix == ".nii.gz":
        (content,) = contents
        assert content[3] == 0  # no name
        assert content[4:8] == bytes(4)  # no time


@pytest.mark.parametrize("suffix", [".NII", ".NII.GZ", ".HDR", ".IMG"])
def test_names_in_capitals_are_kept(suffix: str, tmp_path: Path) -> None:
    name, grid = tmp_path / f"A{suffix}", Grid((2, 2, 2), np.eye(4))
    with NiftiStore(tmp_path).create(str(name), grid, np.dtype(np.uint8)) as sink:
        sink.commit()
    assert name.exists()
    with NiftiStore(tmp_path).open(str(name)) as source:
        assert source.grid == grid


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr"])
def test_no_litter_is_left_beside_the_output(suffix: str, tmp_path: Path) -> None:
    grid = Grid((2, 2, 2), np.eye(4), "mm")
    store, name = NiftiStore(tmp_path), tmp_path / f"a{suffix}"
    with store.create(str(name), grid, np.dtype(np.uint8)):
        pass
    assert list(tmp_path.iterdir()) == []
    with store.create(str(name), grid, np.dtype(np.uint8)) as sink:
        sink.commit()
    expected = {"a.hdr", "a.img"} if suffix == ".hdr" else {name.name}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_an_output_has_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with NiftiStore(tmp_path).create(str(tmp_path / "a.nii"), Grid((2, 2, 2), np.eye(4)), np.dtype(np.uint8)) as sink:
        sink.commit()
    assert (tmp_path / "a.nii").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none/a.nii", "no folder"),
        ("file/a.nii", "which is not a folder"),
        ("folder.nii", "got a folder"),
        ("pair.img", "pair.hdr: expected a file name, got a folder"),
        ("a.png", ".nii, .nii.gz, .hdr or .img, got .png"),
        ("a.hdr.gz", "got .gz"),
        ("a", "no suffix"),
        ("a\0.nii", "NUL"),
        ("n" * 300 + ".nii", "File name too long"),
    ],
)
def test_a_place_that_cannot_take_a_volume_is_an_output_error(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "pair.hdr").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError) as caught:
        NiftiStore(tmp_path).create(str(tmp_path / name), Grid((2, 2, 2), np.eye(4)), np.dtype(np.uint8))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "a writable folder"), (errno.EACCES, "a writable folder"), (errno.EIO, "check the disk")],
)
def test_a_folder_that_cannot_be_written_is_an_output_error(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match=words):
        NiftiStore(tmp_path).create(str(tmp_path / "a.nii"), Grid((2, 2, 2), np.eye(4)), np.dtype(np.uint8))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
def test_no_room_is_found_out_at_once(suffix: str, tmp_path: Path) -> None:
    grid = Grid((64, 64, 64), np.eye(4), "mm")
    with _largest_file(100_000), pytest.raises(OutputError, match="room for"):
        NiftiStore(tmp_path).create(str(tmp_path / f"a{suffix}"), grid, np.dtype(np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".nii.gz", ".hdr"])
def test_no_room_at_commit_leaves_the_older_volume(suffix: str, tmp_path: Path) -> None:
    grid, name = Grid((32, 32, 32), np.eye(4), "mm"), tmp_path / f"a{suffix}"
    store = NiftiStore(tmp_path)
    with store.create(str(name), grid, np.dtype(np.uint8)) as sink:
        sink.commit()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    noise = np.random.default_rng(0).integers(0, 256, grid.shape, np.uint8)
    with store.create(str(name), grid, np.dtype(np.uint8)) as sink:
        sink.write(Box.whole(grid.shape), noise)
        with _largest_file(100), pytest.raises(OutputError, match="room for"):
            sink.commit()
        with pytest.raises(ValueError, match="closed"):
            sink.commit()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_fallocate_the_room_is_reserved_by_writing_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    grid = Grid((128, 128, 128), np.eye(4), "mm")
    with NiftiStore(tmp_path).create(str(tmp_path / "a.nii"), grid, np.dtype(np.uint8)) as sink:
        sink.commit()
    assert not np.asanyarray(nib.load(tmp_path / "a.nii").dataobj).any()
    with _largest_file(1_500_000), pytest.raises(OutputError, match="room for"):
        NiftiStore(tmp_path).create(str(tmp_path / "b.nii"), grid, np.dtype(np.uint8))


def test_a_committed_volume_can_be_read_but_not_written(tmp_path: Path) -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    with NiftiStore(tmp_path).create(str(tmp_path / "a.nii"), grid, np.dtype(np.uint8)) as sink:
        assert sink.commit() == sink.commit()
        assert not sink.read(Box.whole(grid.shape)).any()
        with pytest.raises(ValueError, match="committed"):
            sink.write(Box.whole(grid.shape), np.ones(grid.shape, np.uint8))


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    grid = Grid((2, 3, 4), np.eye(4))
    with NiftiStore(tmp_path).create(str(tmp_path / "a.nii"), grid, np.dtype(np.uint8)) as sink:
        with pytest.raises(ValueError, match="values"):
            sink.write(Box.whole(grid.shape), np.ones((4, 3, 2), np.uint8))
        with pytest.raises(TypeError):
            sink.write(Box.whole(grid.shape), np.ones(grid.shape, np.float32))


@pytest.mark.parametrize("dtype", ["complex64", "float16", "bool", "longdouble"])
def test_types_that_a_volume_cannot_have_are_refused(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype"):
        NiftiStore(tmp_path).create(str(tmp_path / "a.nii"), Grid((2, 2, 2), np.eye(4)), np.dtype(dtype))


@contextmanager
def _largest_file(size_bytes: int) -> Iterator[None]:
    """A disk that is full after ``size_bytes`` of any one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
