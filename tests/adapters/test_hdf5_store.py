"""The HDF5 store keeps the reading contract, in the layouts of ilastik, Fiji, BigDataViewer and Imaris."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
from voxport.adapters.volumes.hdf5 import Hdf5Store
from voxport.domain.errors import InputError, LimitError, OutputError, UsageError, VoxportError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.volume_store import VolumeReadingContract

VALUES = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)  # z, y, x
STATED = Reading(spacing=(0.5, 0.25, 2.0), unit="um", axes="ZYX")


def axistags(axes: str, resolution: dict[str, float] | None = None, unit: str = "") -> str:
    """What ilastik (vigra's AxisTags.toJSON) writes."""
    kinds = {"c": 1, "t": 8}
    tags = [
        {"key": key, "typeFlags": kinds.get(key, 2), "resolution": (resolution or {}).get(key, 0), "description": unit}
        for key in axes
    ]
    return json.dumps({"axes": tags}, indent=2)


class _Hdf5Contract(VolumeReadingContract):
    units = ("um",)
    geometry = "spacing"
    keeps_origin = False
    axes = "czyx"
    options: ClassVar[dict[str, Any]] = {}

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        return Hdf5Store()

    def new_reference(self) -> str:
        return str(self.folder / f"volume_{next(self.numbers)}.h5")

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        array = volume.array.transpose(["cxyz".index(axis) for axis in self.axes])
        with h5py.File(reference, "w") as file:
            data = file.create_dataset("group/data", data=self.stored(array), **self.options)
            data.attrs["axistags"] = axistags(self.axes)
            data.attrs["element_size_um"] = volume.grid.spacing[::-1]
        return reference

    def stored(self, array: Any) -> Any:
        return array

    def place_foreign(self) -> str:
        reference = self.new_reference()
        Path(reference).write_bytes(b"not a volume" * 300)
        return reference


class TestPlainDatasets(_Hdf5Contract):
    pass


class TestCompressedChunks(_Hdf5Contract):
    options: ClassVar[dict[str, Any]] = {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": True}


class TestChannelsLast(_Hdf5Contract):
    axes = "zyxc"

    def stored(self, array: Any) -> Any:
        return array.astype(array.dtype.newbyteorder(">"))


def write(path: Path, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["data"] = VALUES
        file["data"].attrs.update(attributes)
    return path


def read(reference: str | Path, reading: Reading | None = None) -> tuple[Grid, Any]:
    with Hdf5Store().open(str(reference), reading) as source:
        return source.grid, source.read(Box.whole(source.grid.shape))


def refused(reference: str | Path, reading: Reading | None = None) -> VoxportError:
    with pytest.raises(VoxportError) as caught:
        Hdf5Store().open(str(reference), reading)
    assert "\n" not in str(caught.value)
    return caught.value


# The dataset


def test_a_dataset_is_named_behind_the_file_or_as_series(tmp_path: Path) -> None:
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["raw/left"], file["raw/right"] = VALUES, VALUES + 1
        file["raw/times"] = np.arange(4)
        file["raw/names"] = np.array([[b"a"]])
    error = refused(path, STATED)
    assert isinstance(error, InputError)
    assert error.expected == "one of the datasets /raw/left (4x5x6), /raw/right (4x5x6)"
    assert "`series`, e.g. /raw/left" in error.do
    for reference, series in [(f"{path}:/raw/left", None), (str(path), "/raw/left"), (str(path), "raw/left")]:
        reading = Reading(spacing=STATED.spacing, unit="um", axes="ZYX", series=series)
        np.testing.assert_array_equal(read(reference, reading)[1][0], VALUES.T)
    assert Hdf5Store().recognises(f"{path}:/raw/left")
    assert Hdf5Store().places(f"{path}:/raw/left") == (str(path.resolve()),)
    for name, got in [("raw", "raw, which is a group"), ("raw/none", "no raw/none"), ("raw/left/x", "no raw/left/x")]:
        assert refused(f"{path}:/{name}", STATED).got == got
    assert refused(f"{path}:/raw/times", STATED).expected == "2 to 5 dimensions"


def test_a_file_without_a_volume_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["numbers"], file["nothing"] = np.arange(5), h5py.Empty("f4")
    assert refused(tmp_path / "table.h5").got == "none"


@pytest.mark.parametrize(
    ("dtype", "found"), [(bool, "uint8"), (np.float16, "float32"), (np.longdouble, "float64"), (">i4", "int32")]
)
def test_other_numbers_are_read_as_those_that_hold_them(tmp_path: Path, dtype: Any, found: str) -> None:
    values = (VALUES % 2).astype(dtype)
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["data"] = values
    array = read(tmp_path / "odd.h5", STATED)[1]
    assert array.dtype == found
    np.testing.assert_array_equal(array[0], values.T.astype(found))


def test_values_that_are_no_real_numbers_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["data"] = VALUES.astype(np.complex64)
    assert refused(f"{tmp_path / 'odd.h5'}:/data", STATED).got == "complex64"


# Axes and voxel sizes


def test_axes_and_sizes_that_are_not_stated_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.h5")
    assert "`axes`" in refused(path).do
    assert "`spacing`" in refused(path, Reading(axes="ZYX")).do
    grid, array = read(path, STATED)
    assert grid.spacing == (0.5, 0.25, 2)
    np.testing.assert_array_equal(array[0], VALUES.T)


def test_axes_of_ilastik_are_taken_and_its_resolution_where_it_is_stated(tmp_path: Path) -> None:
    assert "`spacing`" in refused(write(tmp_path / "a.h5", axistags=axistags("zyx"))).do
    sizes = {"x": 0.5, "y": 0.25, "z": 2}
    grid, _ = read(write(tmp_path / "b.h5", axistags=axistags("zyx", sizes)))
    assert (grid.spacing, grid.unit) == ((0.5, 0.25, 2), "unknown")
    grid, _ = read(write(tmp_path / "c.h5", axistags=axistags("zyx", {"x": 500, "y": 250, "z": 2000}, "nm")))
    assert (grid.spacing, grid.unit) == ((0.5, 0.25, 2), "um")
    grid, array = read(write(tmp_path / "d.h5", axistags=axistags("xyz", sizes)))
    assert grid.shape == (4, 5, 6)
    np.testing.assert_array_equal(array[0], VALUES)


@pytest.mark.parametrize("tags", ["", "{}", "[]", '{"axes": [{}]}', axistags("yx"), '{"axes": 3}'])
def test_damaged_tags_state_nothing(tmp_path: Path, tags: str) -> None:
    assert "`axes`" in refused(write(tmp_path / "a.h5", axistags=tags)).do


def test_labels_of_dimensions_are_axes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", element_size_um=(2, 0.25, 0.5))
    with h5py.File(path, "a") as file:
        for dimension, label in zip(file["data"].dims, ("z", "Y", "x"), strict=True):
            dimension.label = label
    grid, _ = read(path)
    assert (grid.spacing, grid.unit) == ((0.5, 0.25, 2), "um")
    with h5py.File(path, "a") as file:
        file["data"].dims[0].label = ""
    assert "`axes`" in refused(path).do


def test_sizes_stated_twice_or_in_an_unclear_order_are_asked_for(tmp_path: Path) -> None:
    sizes = {"element_size_um": (2, 0.25, 0.5)}
    twice = write(tmp_path / "a.h5", axistags=axistags("zyx", {"x": 0.6}), **sizes)
    order = write(tmp_path / "b.h5", axistags=axistags("xyz"), **sizes)
    for path in (twice, order):
        assert "element_size_um" in refused(path).got
        assert refused(path).do == "give `spacing` and `unit`"
        assert read(path, Reading(spacing=(0.5, 0.25, 2), unit="um"))[0].spacing == (0.5, 0.25, 2)
    same = write(tmp_path / "c.h5", axistags=axistags("xyz"), element_size_um=(2, 2, 2))
    assert read(same)[0].spacing == (2, 2, 2)


# Files that stay in themselves


def test_other_files_are_never_opened(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.h5")
    path = tmp_path / "bait.h5"
    layout = h5py.VirtualLayout((4, 5, 6), np.uint16)
    layout[:] = h5py.VirtualSource(str(secret), "data", (4, 5, 6))
    with h5py.File(path, "w") as file:
        file["direct"] = h5py.ExternalLink(str(secret), "data")
        file["folder"] = h5py.ExternalLink(str(secret), "/")
        file["soft"], file["deep"] = h5py.SoftLink("/direct"), h5py.SoftLink("folder/data")
        file["loop"] = h5py.SoftLink("/loop")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", (4, 5, 6), np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    secret.unlink()
    secret.mkdir()  # opening it would fail otherwise
    for name in ("direct", "folder/data", "soft", "deep", "loop", "virtual", "outside"):
        error = refused(f"{path}:/{name}", STATED)
        assert isinstance(error, InputError), name
        assert error.expected == "content of this file alone", name
    assert refused(path, STATED).expected.startswith("one of the datasets /outside (4x5x6), /virtual (4x5x6)")


def test_links_within_the_file_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["group/hard"], file["group/up"] = file["data"], h5py.SoftLink("/group/hard")
        file["group/near"] = h5py.SoftLink("hard")
    for name in ("group/hard", "group/up", "group/near", "./group//up/"):
        np.testing.assert_array_equal(read(f"{path}:/{name}", STATED)[1][0], VALUES.T)


# Damage


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    for size in (len(content) - 1, len(content) // 2, 600, 100, 9):
        path.write_bytes(content[:size])
        error = refused(path, STATED)
        assert isinstance(error, InputError), size
        assert error.do == "copy or download it again", size


def test_a_damaged_chunk_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=VALUES, chunks=(1, 5, 6), compression="gzip", fletcher32=True)
        where = data.id.get_chunk_info(2)
    with path.open("r+b") as raw:
        raw.seek(where.byte_offset + 5)
        raw.write(b"\xff\xff\xff\xff")
    with Hdf5Store().open(str(path), STATED) as source:
        np.testing.assert_array_equal(source.read(Box((0, 0, 0), (6, 5, 2)))[0], VALUES[:2].T)
        with pytest.raises(InputError) as caught:
            source.read(Box.whole(source.grid.shape))
    assert "\n" not in str(caught.value)


def test_a_filter_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4, 5, 6))
        properties.set_filter(40_000, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((4, 5, 6))
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT16, space, properties)
    error = refused(path, STATED)
    assert error.got.startswith("filter 40000")
    assert "pip install hdf5plugin" in error.do


def test_a_dataset_of_too_many_voxels_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (10**4, 10**4, 10**4), np.uint8, chunks=(64, 64, 64))
    assert isinstance(refused(tmp_path / "a.h5", STATED), LimitError)


def test_a_file_of_minc_is_left_to_its_advice(tmp_path: Path) -> None:
    (tmp_path / "a.mnc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(98) + b"minc-2.0" + bytes(600))
    assert not Hdf5Store().recognises(str(tmp_path / "a.mnc"))


def test_a_signature_behind_a_block_of_the_user_is_recognised(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["data"] = VALUES
    assert Hdf5Store().recognises(str(tmp_path / "a.mat"))
    np.testing.assert_array_equal(read(tmp_path / "a.mat", STATED)[1][0], VALUES.T)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    error = refused(path, STATED)
    assert isinstance(error, UsageError)
    assert error.do == "pip install 'voxport[microscopy]'"


def test_nothing_is_written(tmp_path: Path) -> None:
    grid = Grid((2, 2, 2), np.eye(4), "um")
    with pytest.raises(OutputError, match="read only"):
        Hdf5Store().create(str(tmp_path / "mask.h5"), grid, np.dtype(np.uint8))
    assert not list(tmp_path.iterdir())


# BigDataViewer and Imaris

XML = """<?xml version="1.0"?><SpimData version="0.2"><SequenceDescription><ViewSetups>
<ViewSetup><id>0</id><voxelSize><unit>{unit}</unit><size>0.5 0.25 2.0</size></voxelSize></ViewSetup>
</ViewSetups></SequenceDescription></SpimData>"""


def big_data_viewer(path: Path, unit: str = "\u00b5m") -> Path:
    """Two points in time, two channels and two levels as BigDataViewer writes them."""
    with h5py.File(path, "w") as file:
        for channel in range(2):
            file[f"s{channel:02d}/resolutions"] = np.array([[1.0, 1, 1], [2, 2, 1]])
            file[f"s{channel:02d}/subdivisions"] = np.array([[4, 4, 4], [4, 4, 4]])
            for time in range(2):
                values = VALUES + 1000 * channel + 30_000 * time
                for level, step in enumerate((1, 2)):
                    small = values[:, ::step, ::step].astype(np.uint16).view(np.int16)
                    name = f"t{time:05d}/s{channel:02d}/{level}/cells"
                    file.create_dataset(name, data=small, chunks=(2, 2, 2), compression="gzip")
    path.with_suffix(".xml").write_text(XML.format(unit=unit), encoding="utf-8")
    return path


def test_a_file_of_big_data_viewer_is_read_with_the_sizes_of_its_xml(tmp_path: Path) -> None:
    path = big_data_viewer(tmp_path / "movie.h5")
    assert "`timepoint`" in refused(path).do
    with Hdf5Store().open(str(path), Reading(timepoint=1)) as source:
        assert (source.grid.spacing, source.grid.unit, source.channels) == ((0.5, 0.25, 2), "um", 2)
        assert source.spacing_sources == ("voxelSize in movie.xml",) * 3
        assert source.chunk == (2, 2, 2)
        found = source.read(Box.whole(source.grid.shape))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.stack([VALUES.T + 30_000, VALUES.T + 31_000]))
    grid, array = read(path, Reading(timepoint=0, level=1, channel="1"))
    assert grid.spacing == (1, 0.5, 2)
    np.testing.assert_array_equal(array[0], VALUES[:, ::2, ::2].T + 1000)
    assert refused(path, Reading(timepoint=0, level=2)).expected == "0 to 1"


def test_a_file_of_big_data_viewer_without_sizes_asks_for_them(tmp_path: Path) -> None:
    path = big_data_viewer(tmp_path / "movie.h5", unit="pixel")
    assert read(path, Reading(timepoint=0))[0].unit == "unknown"
    path.with_suffix(".xml").unlink()
    assert "`spacing`" in refused(path, Reading(timepoint=0)).do
    assert read(path, Reading(spacing=(1, 1, 2), unit="um", timepoint=0))[0].spacing == (1, 1, 2)


def test_channels_of_different_shapes_are_refused(tmp_path: Path) -> None:
    path = big_data_viewer(tmp_path / "movie.h5")
    with h5py.File(path, "a") as file:
        del file["t00000/s01/0/cells"]
        file["t00000/s01/0/cells"] = VALUES[:2].view(np.int16)
    assert "`series`, e.g. /t00000/s01/0/cells" in refused(path, Reading(timepoint=0)).do


def letters(text: str) -> Any:
    return np.array(list(text), dtype="S1")


def imaris(path: Path) -> Path:
    """Two channels as Imaris writes them: padded to whole chunks, numbers as arrays of characters."""
    with h5py.File(path, "w") as file:
        image = file.create_group("DataSetInfo/Image")
        limits = {"ExtMin0": "10.0", "ExtMin1": "20.0", "ExtMin2": "30.0", "Unit": "um", "X": "6", "Y": "5", "Z": "4"}
        limits |= {"ExtMax0": "13.0", "ExtMax1": "21.25", "ExtMax2": "38.0"}
        for name, text in limits.items():
            image.attrs[name] = letters(text)
        for channel, stain in enumerate(("DAPI", "GFP")):
            file.create_group(f"DataSetInfo/Channel {channel}").attrs["Name"] = letters(stain)
            group = file.create_group(f"DataSet/ResolutionLevel 0/TimePoint 0/Channel {channel}")
            for letter, edge in zip("ZYX", VALUES.shape, strict=True):
                group.attrs[f"ImageSize{letter}"] = letters(str(edge))
            padded = np.pad(VALUES + channel, ((0, 4), (0, 3), (0, 2)))
            group.create_dataset("Data", data=padded, chunks=(8, 8, 8), compression="gzip")
    return path


def test_a_file_of_imaris_is_read_with_its_sizes_place_and_names(tmp_path: Path) -> None:
    path = imaris(tmp_path / "cells.ims")
    with Hdf5Store().open(str(path)) as source:
        assert source.grid.unit == "um"
        np.testing.assert_allclose(source.grid.spacing, (0.5, 0.25, 2))
        np.testing.assert_allclose(source.grid.affine[:3, 3], (10.25, 20.125, 31))
        assert source.channel_names == ("DAPI", "GFP")
        assert source.spacing_sources == ("ExtMax0", "ExtMax1", "ExtMax2")
        np.testing.assert_array_equal(source.read(Box.whole((6, 5, 4))), np.stack([VALUES.T, VALUES.T + 1]))


def test_a_file_of_imaris_without_sizes_is_refused(tmp_path: Path) -> None:
    path = imaris(tmp_path / "cells.ims")
    with h5py.File(path, "a") as file:
        del file["DataSetInfo/Image"].attrs["ExtMax2"]
    assert refused(path).expected == "sizes as Imaris writes them"
    with h5py.File(path, "a") as file:
        del file["DataSet/ResolutionLevel 0"]
    assert isinstance(refused(path), VoxportError)
