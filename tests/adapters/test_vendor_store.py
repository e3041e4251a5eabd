"""The store of microscopes' files keeps the reading contract; pylibCZIrw writes CZI, LIF is made by its layout."""

from __future__ import annotations

import struct
import sys
from itertools import count
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from pylibCZIrw import czi
from voxport.adapters.volumes.vendors import VendorStore
from voxport.domain.errors import InputError, LimitError, OutputError, UsageError, VoxportError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.volume_store import VolumeReadingContract

VALUES = np.arange(120, dtype=np.uint16).reshape(1, 1, 4, 5, 6)  # t, c, z, y, x
SIZES = (0.5, 0.25, 2.0)


def write_czi(path: Path, values: Any, sizes: tuple[float | None, ...] = SIZES, names: tuple[str, ...] = ()) -> Path:
    """Write an array ``(T, C, Z, Y, X)``."""
    with czi.create_czi(str(path)) as file:
        for t, c, z in np.ndindex(values.shape[:3]):
            file.write(np.ascontiguousarray(values[t, c, z][..., None]), plane={"T": t, "C": c, "Z": z})
        scales = {f"scale_{axis}": size * 1e-6 for axis, size in zip("xyz", sizes, strict=True) if size is not None}
        file.write_metadata("volume", channel_names=dict(enumerate(names)), **scales)
    return path


def lif_block(memory: bytes, name: str) -> bytes:
    text = name.encode("utf-16-le")
    head = struct.pack("<BQBI", 0x2A, len(memory), 0x2A, len(name)) + text
    return struct.pack("<II", 0x70, len(head)) + head + memory


def lif_image(number: int, name: str, values: Any, sizes: tuple[float | None, ...], names: tuple[str, ...]) -> str:
    """The XML of one image ``(T, C, Z, Y, X)``, stored in that order."""
    channels, dimensions = "", ""
    for channel, stain in enumerate(names or [""] * values.shape[1]):
        channels += (
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * values.itemsize}" '
            f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName={quoteattr(stain)} IsLUTInverted="0" '
            f'BytesInc="{channel * values.strides[1]}" BitInc="0"/>'
        )
    for number_of_axis, axis, size in ((1, 4, sizes[0]), (2, 3, sizes[1]), (3, 2, sizes[2]), (4, 0, 1.0)):
        edge = values.shape[axis]
        if edge > 1 or number_of_axis < 3:
            length = 0 if size is None else (edge - 1) * size * 1e-6
            dimensions += (
                f'<DimensionDescription DimID="{number_of_axis}" NumberOfElements="{edge}" Origin="0" '
                f'Length="{length:.17g}" Unit="{"s" if axis == 0 else "m"}" BitInc="0" '
                f'BytesInc="{values.strides[axis]}"/>'
            )
    return (
        f"<Element Name={quoteattr(name)}><Data><Image><ImageDescription><Channels>{channels}</Channels>"
        f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{values.nbytes}" MemoryBlockID="MemBlock_{number}"/><Children/></Element>'
    )


def write_lif(
    path: Path,
    images: dict[str, Any],
    sizes: tuple[float | None, ...] = SIZES,
    names: tuple[str, ...] = (),
) -> Path:
    """Write arrays ``(T, C, Z, Y, X)`` as the images of a LIF file of version 2."""
    arrays = {name: np.ascontiguousarray(values) for name, values in images.items()}
    elements = "".join(lif_image(n, name, values, sizes, names) for n, (name, values) in enumerate(arrays.items()))
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project"><Children>'
        f"{elements}</Children></Element></LMSDataContainerHeader>"
    )
    text = xml.encode("utf-16-le")
    head = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(xml)) + text
    blocks = b"".join(lif_block(values.tobytes(), f"MemBlock_{n}") for n, values in enumerate(arrays.values()))
    path.write_bytes(head + blocks)
    return path


class _VendorContract(VolumeReadingContract):
    units = ("um",)
    geometry = "spacing"
    keeps_origin = False
    keeps_channel_names = True
    largest_misfit = 1e-6  # sizes in metres
    ending: str

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        return VendorStore()

    def new_reference(self) -> str:
        return str(self.folder / f"volume_{next(self.numbers)}{self.ending}")

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        values = np.ascontiguousarray(volume.array.transpose(0, 3, 2, 1)[None])
        self.save(Path(reference), values, volume.grid.spacing, volume.channel_names)
        return reference

    def save(self, path: Path, values: Any, sizes: Any, names: tuple[str, ...]) -> None:
        raise NotImplementedError

    def place_foreign(self) -> str:
        reference = self.new_reference()
        Path(reference).write_bytes(b"\x70\0\0\0not a volume" * 30)
        return reference


class TestCzi(_VendorContract):
    dtypes = ("uint8", "uint16", "float32")
    ending = ".czi"

    def save(self, path: Path, values: Any, sizes: Any, names: tuple[str, ...]) -> None:
        write_czi(path, values, sizes, names)


def refused(path: Path, reading: Reading | None = None) -> VoxportError:
    with pytest.raises(VoxportError) as caught:
        VendorStore().open(str(path), reading)
    assert "\n" not in str(caught.value)
    return caught.value


def read(path: Path, reading: Reading | None = None) -> tuple[Grid, Any]:
    with VendorStore().open(str(path), reading) as source:
        return source.grid, source.read(Box.whole(source.grid.shape))


def test_an_image_of_lif_is_read_with_its_sizes_and_names(tmp_path: Path) -> None:
    values = np.concatenate([VALUES, VALUES + 1], axis=1)
    path = write_lif(tmp_path / "a.lif", {"series": values}, names=("Green", "Red"))
    with VendorStore().open(str(path)) as source:
        assert (source.grid.shape, source.grid.unit) == ((6, 5, 4), "um")
        np.testing.assert_allclose(source.grid.spacing, SIZES)
        assert source.channel_names == ("Green", "Red")
        assert source.chunk == (6, 5, 1)
        assert source.spacing_sources == ("the metadata of LIF",) * 3
        np.testing.assert_array_equal(source.read(Box.whole((6, 5, 4))), values[0].transpose(0, 3, 2, 1))
        np.testing.assert_array_equal(source.read(Box((1, 2, 3), (4, 4, 4)), [1])[0], values[0, 1].T[1:4, 2:4, 3:4])


def test_one_of_several_images_is_chosen_by_name_or_index(tmp_path: Path) -> None:
    path = write_lif(tmp_path / "a.lif", {"left": VALUES, "right": VALUES[:, :, :2] + 7})
    error = refused(path)
    assert isinstance(error, InputError)
    assert error.got == "2"
    assert "left" in error.expected
    assert "`series`" in error.do
    name = error.do.rpartition(" ")[2]
    np.testing.assert_array_equal(read(path, Reading(series=name))[1][0], VALUES[0, 0].T)
    np.testing.assert_array_equal(read(path, Reading(series="1"))[1][0], VALUES[0, 0, :2].T + 7)
    for series in ("2", "-1", "none"):
        assert isinstance(refused(path, Reading(series=series)), UsageError)


@pytest.mark.parametrize("ending", [".czi", ".lif"])
def test_one_of_several_points_in_time_is_asked_for(tmp_path: Path, ending: str) -> None:
    values = np.concatenate([VALUES, VALUES + 1, VALUES + 2])
    path = tmp_path / f"a{ending}"
    write_czi(path, values) if ending == ".czi" else write_lif(path, {"movie": values})
    assert "`timepoint`" in refused(path).do
    np.testing.assert_array_equal(read(path, Reading(timepoint=2))[1][0], VALUES[0, 0].T + 2)


@pytest.mark.parametrize("ending", [".czi", ".lif"])
def test_a_depth_that_is_not_stated_is_asked_for(tmp_path: Path, ending: str) -> None:
    path, sizes = tmp_path / f"a{ending}", (0.5, 0.25, None)
    write_czi(path, VALUES, sizes) if ending == ".czi" else write_lif(path, {"a": VALUES}, sizes)
    error = refused(path)
    assert isinstance(error, InputError)
    assert error.expected.startswith("a voxel size along z")
    assert read(path, Reading(spacing=(0.5, 0.25, 2), unit="um"))[0].spacing == SIZES


def test_a_single_plane_asks_for_its_depth(tmp_path: Path) -> None:
    path = write_lif(tmp_path / "a.lif", {"a": VALUES[:, :, :1]})
    assert "z" in refused(path).expected
    assert read(path, Reading(spacing=SIZES, unit="um"))[0].shape == (6, 5, 1)


def test_a_picture_in_colours_asks_for_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for z in range(3):
            file.write(np.full((5, 6, 3), z, np.uint8), plane={"T": 0, "C": 0, "Z": z})
        file.write_metadata("volume", scale_x=1e-6, scale_y=1e-6, scale_z=1e-6)
    assert refused(path).got == "a picture in colours (RGB)"
    assert read(path, Reading(channel="1"))[0].shape == (6, 5, 3)


def test_tiles_of_a_mosaic_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "a.czi"
    values = np.arange(4 * 10 * 12, dtype=np.uint16).reshape(4, 10, 12)
    with czi.create_czi(str(path)) as file:
        tiles = [(0, 0), (6, 0), (0, 5), (6, 5)]
        for z in range(4):
            for x, y in tiles:
                tile = np.ascontiguousarray(values[z, y : y + 5, x : x + 6, None])
                file.write(tile, plane={"T": 0, "C": 0, "Z": z}, location=(x, y))
        file.write_metadata("volume", scale_x=0.5e-6, scale_y=0.25e-6, scale_z=2e-6)
    with VendorStore().open(str(path)) as source:
        assert source.grid.shape == (12, 10, 4)
        np.testing.assert_array_equal(source.read(Box.whole(source.grid.shape))[0], values.T)


# Damage


@pytest.mark.parametrize("ending", [".czi", ".lif"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_czi(path, VALUES) if ending == ".czi" else write_lif(path, {"a": VALUES})
    content = path.read_bytes()
    for size in (len(content) - 300, 400, 100, 20, 9, 0):
        path.write_bytes(content[:size])
        with pytest.raises(InputError) as caught:
            read(path)
        assert "\n" not in str(caught.value), size


def test_a_damaged_file_of_nikon_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nd2").write_bytes(b"\xda\xce\xbe\x0a" + bytes(500))
    assert VendorStore().recognises(str(tmp_path / "a.nd2"))
    assert isinstance(refused(tmp_path / "a.nd2"), InputError)


def test_a_file_of_olympus_is_named_with_the_way_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "a.oir").write_bytes(b"OLYMPUSRAWFORMAT" + bytes(500))
    assert VendorStore().recognises(str(tmp_path / "a.oir"))
    error = refused(tmp_path / "a.oir")
    assert error.got == "an OIR file of Olympus"
    assert "Fiji" in error.do


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.czi").write_bytes(b"text")
    assert not VendorStore().recognises(str(tmp_path / "a.czi"))
    assert refused(tmp_path / "a.czi").expected == "a CZI, LIF or ND2 file"


def test_too_many_voxels_are_refused(tmp_path: Path) -> None:
    path = write_czi(tmp_path / "a.czi", VALUES)
    with pytest.raises(LimitError):
        VendorStore(max_voxels=100).open(str(path))


@pytest.mark.parametrize("name", ["bioio_czi", "bioio_lif", "bioio_nd2"])
def test_a_missing_plug_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    starts = {"bioio_czi": b"ZISRAWFILE", "bioio_lif": b"\x70\0\0\0\1\0\0\0\x2a", "bioio_nd2": b"\xda\xce\xbe\x0a"}
    (tmp_path / "a").write_bytes(starts[name] + bytes(100))
    monkeypatch.setitem(sys.modules, name, None)
    error = refused(tmp_path / "a")
    assert isinstance(error, UsageError)
    assert error.do == "pip install 'voxport[vendors]'"


def test_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="read only"):
        VendorStore().create(str(tmp_path / "a.czi"), Grid((2, 2, 2), np.eye(4), "um"), np.dtype(np.uint8))
