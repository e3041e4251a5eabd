"""TIFF files in the odd forms of other writers: read as they state, or refused in one line that works."""

from __future__ import annotations

import logging
import struct
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from voxport.adapters.volumes.tiff import TiffStore
from voxport.adapters.volumes.tiff.instruments import instrument_sizes
from voxport.domain.errors import InputError, LimitError, OutputError, UsageError, VoxportError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.reading import Reading

STACK = np.random.default_rng(18).integers(0, 4000, (5, 70, 60)).astype(np.uint16)  # z, y, x
SIZES = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
GIVEN = Reading(spacing=(0.5, 0.25, 2.0), unit="um", axes="ZYX")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scan.ome.tif"


def read(path: Path, reading: Reading | None = None) -> tuple[Grid, NDArray[Any]]:
    with TiffStore().open(str(path), reading) as source:
        return source.grid, source.read(Box.whole(source.grid.shape))


def refused(path: Path, reading: Reading | None = None, kind: type[VoxportError] = InputError) -> str:
    with pytest.raises(kind) as error:
        TiffStore().open(str(path), reading)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(path.name) or kind is UsageError
    return str(error.value)


def write_ome(path: Path, array: NDArray[Any] = STACK, axes: str = "ZYX", about: Any = SIZES, **options: Any) -> None:
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata={"axes": axes, **about}, **options)


def write_imagej(path: Path, array: NDArray[Any] = STACK, axes: str = "ZYX", **about: Any) -> None:
    resolution = about.pop("resolution", (2, 4))
    tifffile.imwrite(path, array, imagej=True, resolution=resolution, metadata={"axes": axes, **about})


# How pages are stored

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"tile": (32, 16)},
    {"tile": (32, 16), "compression": "zlib", "predictor": True},
    {"tile": (16, 32), "compression": "lzw"},
    {"compression": "lzw", "rowsperstrip": 7, "byteorder": ">"},
    {"compression": "zstd", "rowsperstrip": 13},
    {"compression": "lzma"},
    {"compression": "packbits"},
    {"compression": "jpegxl"},
    {"rowsperstrip": 9},
    {"bigtiff": True, "byteorder": ">", "compression": "zlib", "predictor": True},
]


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_every_layout_of_pages_gives_the_same_boxes(file: Path, options: dict[str, Any]) -> None:
    write_ome(file, **options)
    box = Box((17, 5, 1), (49, 66, 4))
    with TiffStore().open(str(file)) as source:
        assert source.grid == Grid((60, 70, 5), np.diag([0.5, 0.25, 2, 1]), "um")
        assert source.spacing_sources[2] == "PhysicalSizeZ in um, OME's default"
        np.testing.assert_array_equal(source.read(box)[0], STACK.T[box.slices])
        np.testing.assert_array_equal(source.read(Box.whole(source.grid.shape))[0], STACK.T)


@pytest.mark.parametrize("dtype", ["float16", "bool", "float32", "uint8", "int8", "uint32"])
def test_types_are_read_as_their_values(tmp_path: Path, dtype: str) -> None:
    stack = (STACK % 2).astype(dtype)
    tifffile.imwrite(tmp_path / "plain.tif", stack, photometric="minisblack")
    _, values = read(tmp_path / "plain.tif", GIVEN)
    assert values.dtype.name == {"float16": "float32", "bool": "uint8"}.get(dtype, dtype)
    np.testing.assert_array_equal(values[0], stack.T)


def test_pages_of_another_library_are_read(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(page) for page in STACK]
    first.save(tmp_path / "scan.tif", save_all=True, append_images=others, compression="tiff_lzw")
    assert "got IYX in an array of 5x70x60" in refused(tmp_path / "scan.tif")
    _, values = read(tmp_path / "scan.tif", GIVEN)
    np.testing.assert_array_equal(values[0], STACK.T)


def test_a_box_decodes_only_the_tiles_that_it_needs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ome(file, tile=(16, 16), compression="zlib")
    with TiffStore().open(str(file)) as source:
        assert source.chunk == (16, 16, 1)
        decoded: list[int] = []
        page = source._fetch.__self__.keyframe  # type: ignore[attr-defined]
        original = page.decode

        def decode(content: bytes, segment: int, **options: Any) -> Any:
            decoded.append(segment)
            return original(content, segment, **options)

        monkeypatch.setitem(page.__dict__, "decode", decode)
        source.read(Box((0, 0, 0), (16, 16, 2)))
        assert decoded == [0, 0]
        source.read(Box((0, 0, 0), (16, 17, 2)))
        assert decoded == [0, 0, 4, 4]  # those of the first box are kept


def test_levels_of_a_pyramid_cover_the_same_space(file: Path) -> None:
    about = {"axes": "ZYX", **SIZES}
    with tifffile.TiffWriter(file, ome=True) as writer:
        writer.write(STACK, subifds=2, photometric="minisblack", metadata=about, tile=(16, 16))
        writer.write(STACK[:, ::2, ::2], subfiletype=1, tile=(16, 16))
        writer.write(STACK[:, ::4, ::4], subfiletype=1, tile=(16, 16))
    grid, values = read(file)
    np.testing.assert_array_equal(values[0], STACK.T)
    grid, values = read(file, Reading(level=2))
    np.testing.assert_array_equal(values[0], STACK[:, ::4, ::4].T)
    assert grid.spacing == (2.0, 1.0, 2.0)
    np.testing.assert_allclose(grid.affine[:3, 3], (0.75, 0.375, 0))
    assert "0 to 2" in refused(file, Reading(level=3), UsageError)


# What states the voxel sizes


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("um", (0.5, 0.25, 2.0, "um")),
        ("micron", (0.5, 0.25, 2.0, "um")),
        ("\\u00B5m", (0.5, 0.25, 2.0, "um")),
        ("nm", (0.0005, 0.00025, 0.002, "um")),
        ("mm", (0.5, 0.25, 2.0, "mm")),
        ("cm", (5.0, 2.5, 20.0, "mm")),
        ("inch", (12.7, 6.35, 50.8, "mm")),
        ("pixel", (0.5, 0.25, 2.0, "unknown")),
    ],
)
def test_units_of_imagej_are_known_in_their_spellings(file: Path, unit: str, expected: tuple[Any, ...]) -> None:
    write_imagej(file, spacing=2.0, unit=unit)
    grid, values = read(file)
    np.testing.assert_allclose(grid.spacing, expected[:3])
    assert grid.unit == expected[3]
    np.testing.assert_array_equal(values[0], STACK.T)


def test_a_hyperstack_has_channels_and_points_in_time(file: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 255, (2, 5, 3, 8, 9)).astype(np.uint8)
    write_imagej(file, stack, "TZCYX", spacing=2.0, unit="um")
    assert "choose one with `timepoint`" in refused(file)
    grid, values = read(file, Reading(timepoint=1, channel="2,0"))
    assert grid.shape == (9, 8, 5)
    np.testing.assert_array_equal(values, stack[1][:, [2, 0]].transpose(1, 3, 2, 0))


def test_an_imagej_stack_with_one_page_entry_is_read_whole(tmp_path: Path) -> None:
    """ImageJ writes one page entry for stacks of more than 4 GB; the planes follow each other."""
    path = tmp_path / "virtual.tif"
    write_imagej(path, spacing=2.0, unit="um")
    content = bytearray(path.read_bytes())
    (entry,) = struct.unpack_from("<I", content, 4)
    (tags,) = struct.unpack_from("<H", content, entry)
    struct.pack_into("<I", content, entry + 2 + 12 * tags, 0)
    path.write_bytes(content)
    grid, values = read(path)
    assert grid.shape == (60, 70, 5)
    np.testing.assert_array_equal(values[0], STACK.T)


@pytest.mark.parametrize("lacking", ["PhysicalSizeZ", "PhysicalSizeX"])
def test_an_absent_size_is_asked_for_by_its_name(file: Path, lacking: str) -> None:
    write_ome(file, about={name: size for name, size in SIZES.items() if name != lacking})
    text = refused(file)
    assert f"{lacking[-1].lower()} ({lacking})" in text
    assert "`spacing`" in text
    assert read(file, Reading(spacing=(1, 1, 2), unit="um"))[0].spacing == (1, 1, 2)


def test_a_size_of_zero_is_asked_for(file: Path) -> None:
    write_ome(file, about=SIZES | {"PhysicalSizeZ": 0.0})
    assert "got 0 along z" in refused(file)
    write_imagej(file, spacing=0.0, unit="um")
    assert "got 0 along z" in refused(file)


def test_imagej_without_calibration_states_no_sizes(file: Path) -> None:
    write_imagej(file, resolution=(1, 1))
    assert "x (XResolution), y (YResolution), z (ImageJ spacing)" in refused(file)


def test_units_of_ome_are_brought_to_one(file: Path) -> None:
    write_ome(file, about=SIZES | {"PhysicalSizeXUnit": "nm", "PhysicalSizeZUnit": "mm"})
    grid, _ = read(file)
    np.testing.assert_allclose(grid.spacing, (0.0005, 0.25, 2000))
    assert grid.unit == "um"


def test_sizes_of_which_some_have_no_unit_of_length_are_a_conflict(file: Path) -> None:
    write_ome(file, about=SIZES | {"PhysicalSizeZUnit": "pixel"})
    assert "PhysicalSizeZ in pixel" in refused(file)


def test_positions_of_planes_that_contradict_the_size_are_a_conflict(file: Path) -> None:
    planes = {"PositionX": [7.0] * 5, "PositionY": [1.0] * 5, "PositionZ": [0.0, 3.0, 6.0, 9.0, 12.0]}
    units = {f"Position{letter}Unit": ["µm"] * 5 for letter in "XYZ"}
    write_ome(file, about=SIZES | {"Plane": planes | units})
    assert "PhysicalSizeZ of 2 um, planes 3 um apart" in refused(file)
    planes["PositionZ"] = [4.0, 6.0, 8.0, 10.0, 12.0]
    write_ome(file, about=SIZES | {"Plane": planes | units})
    np.testing.assert_array_equal(read(file)[0].affine[:3, 3], (7, 1, 4))
    write_ome(file, about=SIZES | {"Plane": planes})  # of the stage, in no unit
    np.testing.assert_array_equal(read(file)[0].affine[:3, 3], (0, 0, 0))


@pytest.mark.parametrize(
    ("per_cm", "conflict"), [((20000, 40000), False), ((10000, 40000), True), ((28.346, 28.346), False)]
)
def test_tags_of_a_measured_resolution_are_compared_with_ome(
    file: Path, per_cm: tuple[float, float], conflict: bool
) -> None:
    """72 dots per inch, 28.346 per cm, is a default of writers."""
    write_ome(file, resolution=per_cm, resolutionunit="CENTIMETER")
    if conflict:
        assert "XResolution of 0.001 mm" in refused(file)
    else:
        assert read(file)[0].spacing == (0.5, 0.25, 2.0)


def test_a_plain_stack_needs_axes_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack")
    assert "name them with `axes`, e.g. ZYX" in refused(path)
    assert "`spacing`" in refused(path, Reading(axes="ZYX"))
    grid, values = read(path, GIVEN)
    np.testing.assert_array_equal(values[0], STACK.T)
    assert grid.spacing == (0.5, 0.25, 2.0)


def test_scanimage_states_the_step_along_z_beside_the_tags(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, STACK, resolution=(12500, 12500), resolutionunit="CENTIMETER", photometric="minisblack")
    meta = {"FrameData": {"SI.hStackManager.stackZStepSize": -3}}
    with tifffile.TiffFile(path) as tiff:
        assert instrument_sizes(tiff) is None
        known = {f"is_{name}": False for name in ("lsm", "stk", "fluoview", "micromanager")}
        stated = instrument_sizes(
            SimpleNamespace(is_scanimage=True, scanimage_metadata=meta, pages=tiff.pages, **known)
        )
    assert stated is not None
    assert stated.unit == "um"
    np.testing.assert_allclose([stated.spacing[letter] for letter in "XYZ"], (0.8, 0.8, 3))


@pytest.mark.parametrize(
    ("kind", "meta", "spacing"),
    [
        ("lsm", {"VoxelSizeX": 2e-7, "VoxelSizeY": 3e-7, "VoxelSizeZ": 1e-6}, (0.2, 0.3, 1.0)),
        (
            "stk",
            {"XCalibration": 0.2, "YCalibration": 0.3, "CalibrationUnits": "um", "ZDistance": np.ones(4)},
            (0.2, 0.3, 1.0),
        ),
        (
            "fluoview",
            {"Dimensions": (("X", 9, 0.0, 0.2, "um"), ("Y", 9, 0.0, 0.3, "um"), ("Z", 4, 0.0, 1.0, "um"))},
            (0.2, 0.3, 1.0),
        ),
        ("micromanager", {"Summary": {"PixelSize_um": 0.2, "z-step_um": 1.0, "ChNames": ["DAPI"]}}, (0.2, 0.2, 1.0)),
    ],
)
def test_metadata_of_instruments_give_sizes_in_um(kind: str, meta: Any, spacing: tuple[float, ...]) -> None:
    kinds = ("lsm", "stk", "fluoview", "micromanager", "scanimage")
    tiff = SimpleNamespace(**{f"is_{name}": name == kind for name in kinds}, **{f"{kind}_metadata": meta})
    stated = instrument_sizes(tiff)
    assert stated is not None
    assert stated.unit == "um"
    np.testing.assert_allclose([stated.spacing[letter] for letter in "XYZ"], spacing)


# Channels, colours and several images


def test_channels_of_ome_have_their_names(file: Path) -> None:
    stack = np.stack([STACK, STACK + 1])
    write_ome(file, stack, "CZYX", {**SIZES, "Channel": {"Name": ["vessels, red", "nuclei"]}}, compression="zlib")
    with TiffStore().open(str(file), Reading(channel="nuclei")) as source:
        assert source.channel_names == ("nuclei",)
        np.testing.assert_array_equal(source.read(Box.whole(source.grid.shape))[0], STACK.T + 1)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_picture_in_colours_is_refused_unless_one_colour_is_taken(file: Path, planar: str) -> None:
    colours = np.random.default_rng(2).integers(0, 255, (5, 8, 9, 3)).astype(np.uint8)
    stored, axes = (colours, "ZYXS") if planar == "contig" else (colours.transpose(0, 3, 1, 2), "ZSYX")
    tifffile.imwrite(file, stored, photometric="rgb", planarconfig=planar, ome=True, metadata={"axes": axes, **SIZES})
    assert "RGB" in refused(file)
    _, values = read(file, Reading(channel="1"))
    np.testing.assert_array_equal(values[0], colours[..., 1].T)


def test_one_of_several_images_is_chosen_by_number_or_name(file: Path) -> None:
    with tifffile.TiffWriter(file, ome=True) as writer:
        for name, image in (("first", STACK), ("second", STACK[:, ::2] + 1)):
            about = {"axes": "ZYX", "Name": name, **SIZES}
            writer.write(image, photometric="minisblack", metadata=about)
    assert "0 (5x70x60, first), 1 (5x35x60, second)" in refused(file)
    for chosen in ("1", "second"):
        np.testing.assert_array_equal(read(file, Reading(series=chosen))[1][0], STACK[:, ::2].T + 1)
    assert "expected one of 0" in refused(file, Reading(series="third"), UsageError)


def test_a_set_of_files_is_read_where_all_are_beside(tmp_path: Path) -> None:
    parts = [tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"]
    ids = [f"urn:uuid:0000000{n}-0000-0000-0000-000000000000" for n in range(2)]
    for number, part in enumerate(parts):
        write_set(part, ids, number, [p.name for p in parts])
    _, values = read(parts[0])
    np.testing.assert_array_equal(values[0], STACK[:2].T)
    for part in parts:
        assert set(TiffStore().places(str(part))) == {str(p.resolve()) for p in parts}
    with TiffStore().open(str(parts[0])) as source:
        before = source.sha256()
    parts[1].rename(tmp_path / "c.ome.tif")
    assert "expected b.ome.tif beside it" in refused(parts[0])
    write_set(parts[1], ids, 0, [p.name for p in parts])
    with TiffStore().open(str(parts[0])) as source:
        assert source.sha256() != before


@pytest.mark.parametrize("outside", ["../b.ome.tif", "{}/b.ome.tif", "..\\b.ome.tif"])
def test_files_elsewhere_are_not_read(tmp_path: Path, outside: str) -> None:
    (tmp_path / "in").mkdir()
    ids = [f"urn:uuid:0000000{n}-0000-0000-0000-000000000000" for n in range(2)]
    write_set(tmp_path / "b.ome.tif", ids, 1, ["a", "b"])
    write_set(tmp_path / "in" / "a.ome.tif", ids, 0, ["a.ome.tif", outside.format(tmp_path)])
    assert "beside it" in refused(tmp_path / "in" / "a.ome.tif")


def write_set(path: Path, ids: list[str], number: int, names: list[str]) -> None:
    data = "".join(
        f'<TiffData FirstZ="{n}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{id_}</UUID></TiffData>'
        for n, (id_, name) in enumerate(zip(ids, names, strict=True))
    )
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{ids[number]}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        'SizeX="60" SizeY="70" SizeZ="2" SizeC="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.25" '
        f'PhysicalSizeZ="2"><Channel ID="Channel:0:0"/>{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(path, STACK[number], description=text, metadata=None, photometric="minisblack")


# Damaged files, and what is missing


def test_every_cut_of_a_file_is_refused_in_one_line_or_read_whole(tmp_path: Path) -> None:
    forms: list[dict[str, Any]] = [{}, {"compression": "zlib", "tile": (32, 32)}, {"compression": "lzw"}]
    for number, options in enumerate(forms):
        whole = tmp_path / f"whole{number}.ome.tif"
        write_ome(whole, **options)
        content = whole.read_bytes()
        for length in sorted({0, 3, 4, 8, 10, *range(16, len(content), max(1, len(content) // 24)), len(content) - 1}):
            part = tmp_path / "part.ome.tif"
            part.write_bytes(content[:length])
            with pytest.raises(InputError) as error:
                read(part)
            assert "\n" not in str(error.value)


def test_a_chain_of_pages_that_is_cut_is_no_shorter_stack(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in STACK:
            writer.write(page, metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as tiff:
        offsets = [page.offset for page in tiff.pages]
    content = path.read_bytes()
    path.write_bytes(content[: offsets[3]])
    assert "copy it again" in refused(path, GIVEN)


def test_a_page_that_does_not_decode_is_refused_when_it_is_read(file: Path) -> None:
    write_ome(file, compression="zlib")
    with tifffile.TiffFile(file) as tiff:
        start = tiff.pages[3].dataoffsets[0]
    content = bytearray(file.read_bytes())
    content[start : start + 40] = bytes(40)
    file.write_bytes(content)
    with TiffStore().open(str(file)) as source:
        source.read(Box((0, 0, 0), (60, 70, 3)))
        with pytest.raises(InputError, match=r"page 3 does not decode .*copy it again") as error:
            source.read(Box.whole(source.grid.shape))
    assert "\n" not in str(error.value)


IMAGEJ_CLAIM = "ImageJ=1.54f\nimages=1000000000\nslices=1000000000\nspacing=2\nunit=um\n"
OME_CLAIM = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="60" SizeY="70" SizeZ="1000000000" SizeC="1" '
    'SizeT="1"><Channel ID="Channel:0:0"/><TiffData/></Pixels></Image></OME>'
)


@pytest.mark.parametrize("text", [IMAGEJ_CLAIM, OME_CLAIM, '{"shape": [1000000000, 70, 60], "axes": "ZYX"}'])
def test_descriptions_that_claim_a_million_million_voxels_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claims.tif"
    tifffile.imwrite(path, STACK[0], description=text, metadata=None, photometric="minisblack")
    refused(path, GIVEN)  # what is imported at first does not count
    tracemalloc.start()
    refused(path, GIVEN)
    assert tracemalloc.get_traced_memory()[1] < 5e7
    tracemalloc.stop()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_that_claim_a_million_million_voxels_are_refused(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "claims.tif"
    tifffile.imwrite(path, STACK[0], compression=compression, metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages.first.tags[tag].overwrite(1_000_000)
    refused(path, Reading(spacing=(1, 1, 1), unit="um"), VoxportError)


def test_more_voxels_than_the_limit_are_refused(file: Path) -> None:
    write_ome(file)
    with pytest.raises(LimitError, match="at most 100 voxels"):
        TiffStore(max_voxels=100).open(str(file))


def test_a_document_type_in_the_metadata_is_refused(file: Path) -> None:
    text = '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "b">]><OME>&a;</OME>'
    tifffile.imwrite(file, STACK, description=text, metadata=None, photometric="minisblack")
    assert "document type" in refused(file)


def test_a_pointer_to_metadata_elsewhere_says_which_file(file: Path) -> None:
    text = '<?xml version="1.0"?><OME><BinaryOnly MetadataFile="main.ome.tif" UUID="urn:uuid:1"/></OME>'
    tifffile.imwrite(file, STACK, description=text, metadata=None, photometric="minisblack")
    assert "give main.ome.tif instead" in refused(file)


def test_complex_values_are_refused(file: Path) -> None:
    tifffile.imwrite(file, STACK.astype(np.complex64), photometric="minisblack")
    assert "complex64" in refused(file, GIVEN)


def test_a_missing_codec_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ome(file, compression="lzw")

    class Missing:
        def __getitem__(self, code: int) -> Any:
            raise KeyError(f"{code!r} requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", Missing())
    assert "pip install 'voxport[microscopy]'" in refused(file, kind=UsageError)


def test_a_missing_library_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ome(file)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert TiffStore().recognises(str(file))
    assert "pip install 'voxport[microscopy]'" in refused(file, kind=UsageError)
    with pytest.raises(UsageError, match="microscopy"):
        TiffStore().create(str(file), Grid((2, 2, 2), np.eye(4), "um"), np.dtype(np.uint8))


def test_nothing_of_the_library_is_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_ome(file)
    file.write_bytes(file.read_bytes()[:-5000])
    with caplog.at_level(logging.DEBUG, logger="tifffile"):
        refused(file)
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "words"), [("none.tif", "no such file"), ("", "a folder"), ("a.tif/b.tif", "Not a directory")]
)
def test_what_is_no_file_is_said(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=words):
        TiffStore().open(str(tmp_path / name))


# Written files

TABLE = LabelTable((Label(1, "vessel & <lumen>", "#112233"), Label(300, "soma\0µ", "#ff0000")))


def written(path: Path, grid: Grid, values: NDArray[Any], **about: Any) -> tuple[str, tuple[str, ...]]:
    with TiffStore().create(str(path), grid, values.dtype, channels=len(values), **about) as sink:
        sink.write(Box.whole(grid.shape), values)
        return sink.commit(), sink.notes


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    grid = Grid((60, 70, 5), np.diag([0.1 + 0.2, 0.25, 2, 1]), "um")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    hashes = {
        written(tmp_path / folder / f"{folder}.ome.tif", grid, STACK.T[np.newaxis], labels=TABLE)[0] for folder in "ab"
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (5, 1, 3), (600, 520, 2), (3, 4, 1)])
def test_any_shape_opens_again_on_its_grid(file: Path, shape: tuple[int, int, int]) -> None:
    affine = np.diag([0.1 + 0.2, 1 / 3, 2, 1])
    affine[:3, 3] = 0.1, -7.7, 1e-3
    values = np.random.default_rng(4).integers(0, 9, (2, *shape)).astype(np.uint8)
    for unit in ("um", "mm", "unknown"):
        written(file, Grid(shape, affine, unit), values, channel_names=["a<b", "c"], labels=TABLE)
        with TiffStore().open(str(file)) as source:
            assert source.grid == Grid(shape, affine, unit)
            assert source.channel_names == ("a<b", "c")
            np.testing.assert_array_equal(source.read(Box.whole(shape)), values)


def test_directions_that_are_lost_are_noted(file: Path) -> None:
    affine = np.array([[-0.5, 0, 0, 3], [0, -0.5, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    values = STACK.T[np.newaxis]
    _, notes = written(file, Grid((60, 70, 5), affine, "mm"), values)
    assert "directions of axes, here LPS" in notes[0]
    assert written(file, Grid((60, 70, 5), np.diag([0.5, 0.5, 2, 1]), "mm"), values)[1] == ()


def test_integers_of_64_bits_are_refused(file: Path) -> None:
    with pytest.raises(OutputError, match="int64"):
        TiffStore().create(str(file), Grid((2, 2, 2), np.eye(4), "um"), np.dtype(np.int64))


def test_the_stack_of_a_published_package_is_read(tmp_path: Path) -> None:
    """The example stack of stardist 0.9.2 (BSD-3-Clause), written by tifffile in 2019 without axes and sizes."""
    path = tmp_path / "img3d.tif"
    path.write_bytes((Path(__file__).parents[1] / "data" / "stardist-img3d.tif").read_bytes())
    assert "got QYX in an array of 31x61x57" in refused(path)
    assert "a voxel size along x, y, z" in refused(path, Reading(axes="ZYX"))
    grid, values = read(path, GIVEN)
    assert grid == Grid((57, 61, 31), np.diag([0.5, 0.25, 2, 1]), "um")
    with Image.open(path) as pages:
        for number in range(31):
            pages.seek(number)
            np.testing.assert_array_equal(values[0, :, :, number].T, np.asarray(pages))
