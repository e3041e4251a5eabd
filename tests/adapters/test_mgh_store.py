"""The MGH store keeps the reading half of the volume store's contract; nibabel writes its files here."""

from __future__ import annotations

import gzip
from itertools import count
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from voxport.adapters.volumes.mgh import MghStore
from voxport.domain.errors import InputError, LimitError, OutputError, UsageError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.volume_store import VolumeReadingContract

nib: Any = nibabel
VALUES = np.arange(120, dtype=np.int16).reshape(4, 5, 6)


class _MghContract(VolumeReadingContract):
    suffix: str
    dtypes = ("uint8", "int16", "uint16", "int32", "float32")
    units = ("mm",)
    geometry = "directions"
    largest_misfit = 1e-2  # directions, sizes and the place of the centre are single precision

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        return MghStore(self.folder)

    def new_reference(self) -> str:
        return str(self.folder / f"volume_{next(self.numbers)}{self.suffix}")

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        array = np.moveaxis(volume.array, 0, 3)
        nib.save(nib.MGHImage(array if volume.channels > 1 else array[..., 0], volume.grid.affine), reference)
        return reference

    def place_foreign(self) -> str:
        reference = self.new_reference()
        Path(reference).write_bytes(b"\0\0\0\1" + b"\xff" * 400)
        return reference


class TestMgh(_MghContract):
    suffix = ".mgh"


class TestMgz(_MghContract):
    suffix = ".mgz"


def _write(folder: Path, name: str = "a.mgh") -> bytearray:
    nib.save(nib.MGHImage(VALUES, np.diag([2.0, 3.0, 4.0, 1.0])), folder / name)
    return bytearray((folder / name).read_bytes())


def test_a_volume_in_a_standard_order_has_nibabels_affine_exactly(tmp_path: Path) -> None:
    _write(tmp_path)
    with MghStore().open(str(tmp_path / "a.mgh")) as source:
        np.testing.assert_array_equal(source.grid.affine, nib.MGHImage(VALUES, np.diag([2.0, 3.0, 4.0, 1.0])).affine)
        assert source.spacing_sources == ("delta", "delta", "delta")
        assert source.notes == ()


def test_frames_are_channels_or_points_in_time_as_the_user_states(tmp_path: Path) -> None:
    frames = np.stack([VALUES, VALUES + 1000], axis=3)
    nib.save(nib.MGHImage(frames, np.eye(4)), tmp_path / "a.mgz")
    with MghStore(tmp_path).open(str(tmp_path / "a.mgz")) as source:
        assert source.channels == 2
    with MghStore(tmp_path).open(str(tmp_path / "a.mgz"), Reading(axes="XYZT", timepoint=1)) as source:
        np.testing.assert_array_equal(source.read(Box.whole((4, 5, 6)))[0], VALUES + 1000)
    with pytest.raises(UsageError, match="0 to 1"):
        MghStore(tmp_path).open(str(tmp_path / "a.mgz"), Reading(axes="XYZT", timepoint=2))


def test_a_volume_without_directions_asks_for_voxel_sizes_and_notes_the_axes(tmp_path: Path) -> None:
    content = _write(tmp_path)
    content[28:30] = b"\0\0"
    (tmp_path / "a.mgh").write_bytes(content)
    with pytest.raises(InputError, match=r"x \(delta\)"):
        MghStore().open(str(tmp_path / "a.mgh"))
    with MghStore().open(str(tmp_path / "a.mgh"), Reading(spacing=(2.0, 3.0, 4.0))) as source:
        np.testing.assert_array_equal(source.grid.affine, np.diag([2.0, 3.0, 4.0, 1.0]))
        assert "states no directions" in source.notes[0]


@pytest.mark.parametrize(
    ("at", "part", "words"),
    [
        (4, b"\0\0\0\0", "at least one voxel"),
        (4, b"\x7f\xff\xff\xff", "as its header says"),
        (20, b"\0\0\0\2", "the type 2"),
        (30, b"\0\0\0\0", "three directions"),
        (42, b"\x7f\xc0\0\0", "three directions"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_damaged_header_is_refused_in_one_line(at: int, part: bytes, words: str, pack: Any, tmp_path: Path) -> None:
    content = _write(tmp_path)
    content[at : at + 4] = part
    (tmp_path / "a.mgz").write_bytes(pack(content))
    with pytest.raises((InputError, LimitError)) as refused:
        MghStore(tmp_path, max_voxels=2**40).open(str(tmp_path / "a.mgz"))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("keep", [0, 3, 20, 200, 284, 400])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_cut_short_is_refused(keep: int, pack: Any, tmp_path: Path) -> None:
    (tmp_path / "a.mgz").write_bytes(pack(bytes(_write(tmp_path)[:keep])))
    with pytest.raises(InputError):
        MghStore(tmp_path).open(str(tmp_path / "a.mgz"))


def test_more_voxels_than_the_limit_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    with pytest.raises(LimitError, match="at most 119 voxels, got 120"):
        MghStore(tmp_path, max_voxels=119).open(str(tmp_path / "a.mgh"))


def test_writing_is_refused_with_a_name_that_works(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.nii\.gz"):
        MghStore().create(str(tmp_path / "a.mgz"), Grid((2, 2, 2), np.eye(4)), np.dtype(np.uint8))
