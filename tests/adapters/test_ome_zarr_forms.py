"""OME-Zarr in the forms of other writers: by ngff-zarr, by zarr-python, and by hand where no library writes them."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr
import zarr.codecs
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.adapters.volumes.routed import RoutedStore
from voxport.domain.errors import InputError, LimitError, OutputError, UsageError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume

from .test_ome_zarr_store import attributes_of, write_array, write_group, write_json, zip_folder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ngff_zarr

VALUES = np.random.default_rng(0).integers(0, 1000, (5, 6, 7), np.uint16)  # z, y, x
AXES = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
SCALE = {"type": "scale", "scale": [2.0, 0.5, 0.25]}
WHOLE = Box.whole((7, 6, 5))
TABLE = LabelTable((Label(1, "vessel", "#112233"), Label(7, "soma, left", "#ff0000")))


def image(folder: Path, zarr_format: int = 2, **changes: Any) -> Path:
    """Write an image of one level; ``changes`` are those of its multiscales, None to leave a field out."""
    level = {"path": "0", "coordinateTransformations": [SCALE]}
    multiscale = {"version": "0.4", "axes": AXES, "datasets": [level]} | changes
    attributes: dict[str, Any] = {"multiscales": [{k: v for k, v in multiscale.items() if v is not None}]}
    write_group(folder, attributes if zarr_format == 2 else {"ome": {"version": "0.5"} | attributes}, zarr_format)
    write_array(folder / "0", VALUES, (2, 3, 4), zarr_format)
    return folder


def read(path: Path | str, reading: Reading | None = None) -> tuple[Any, Grid]:
    with OmeZarrStore().open(str(path), reading) as source:
        return source.read(Box.whole(source.grid.shape)), source.grid


def assert_read(path: Path | str, reading: Reading | None = None, spacing: tuple[float, ...] = (0.25, 0.5, 2)) -> None:
    values, grid = read(path, reading)
    np.testing.assert_array_equal(values[0].T, VALUES)
    assert grid.spacing == pytest.approx(spacing, rel=1e-12)
    assert grid.unit == "um"


# Arrays


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f8", ">i4"])
@pytest.mark.parametrize(
    ("encode", "compressor"),
    [
        (bytes, None),
        (zlib.compress, {"id": "zlib", "level": 1}),
        (imagecodecs.zstd_encode, {"id": "zstd", "level": 3}),
        (imagecodecs.gzip_encode, {"id": "gzip", "level": 5}),
        (
            lambda content: imagecodecs.blosc_encode(content, compressor="lz4", typesize=2),
            {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
        ),
    ],
)
def test_arrays_of_format_two(
    tmp_path: Path, order: str, separator: str, dtype: str, encode: Any, compressor: object
) -> None:
    folder = image(tmp_path / "a.zarr")
    shutil.rmtree(folder / "0")
    write_array(
        folder / "0",
        VALUES.astype(dtype),
        (2, 3, 4),
        2,
        order=order,
        separator=separator,
        encode=encode,
        compressor=compressor,
    )
    assert_read(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 3, 4)},
        {"chunks": (2, 3, 4), "shards": (4, 6, 8)},
        {"chunks": (2, 3, 4), "compressors": None},
        {"chunks": (2, 3, 4), "compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
        {"chunks": (2, 3, 4), "compressors": [zarr.codecs.GzipCodec(level=1), zarr.codecs.Crc32cCodec()]},
        {"chunks": (2, 3, 4), "filters": [zarr.codecs.TransposeCodec(order=(2, 0, 1))]},
        {"chunks": (9, 9, 9)},
        {"chunks": (2, 3, 4), "chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
)
def test_arrays_of_format_three(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = image(tmp_path / "a.zarr", 3)
    shutil.rmtree(folder / "0")
    array = zarr.create_array(tmp_path / "a.zarr", name="0", shape=VALUES.shape, dtype=VALUES.dtype, **options)
    array[...] = VALUES
    assert_read(folder)


def test_a_chunk_that_is_not_stored_has_the_fill_value(tmp_path: Path) -> None:
    folder = image(tmp_path / "a.zarr")
    (folder / "0" / "0" / "0" / "0").unlink()
    values, _ = read(folder)
    assert not values[0, :4, :3, :2].any()


def test_slabs_thinner_than_chunks_decode_each_chunk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = image(tmp_path / "a.zarr"), []
    get = zarr.storage.LocalStore.get

    async def counted(self: Any, key: str, *args: Any, **named: Any) -> Any:
        asked.append(key)
        return await get(self, key, *args, **named)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    for axis in range(3):
        with OmeZarrStore().open(str(folder)) as source:
            asked.clear()
            edge = WHOLE.shape[axis]
            slabs = [WHOLE.with_range(axis, at, at + 1) for at in range(edge)]
            np.testing.assert_array_equal(np.concatenate([source.read(slab)[0] for slab in slabs], axis).T, VALUES)
        assert len(asked) == len(set(asked)) == 3 * 2 * 2


# Metadata


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_axes_are_taken_by_type_and_name_in_any_case(tmp_path: Path, zarr_format: int) -> None:
    axes = [
        {"name": "Time", "type": "time", "unit": "second"},
        {"name": "stain", "type": "channel"},
        *({"name": axis, "type": "space", "unit": "micrometer"} for axis in "ZYX"),
    ]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [3.0, 1.0, 2.0, 0.5, 0.25]}]}
    folder = image(tmp_path / "a.zarr", zarr_format, axes=axes, datasets=[level])
    shutil.rmtree(folder / "0")
    write_array(folder / "0", VALUES[np.newaxis, np.newaxis], (1, 1, 2, 3, 4), zarr_format)
    assert_read(folder)
    shutil.rmtree(folder / "0")
    write_array(folder / "0", np.stack([VALUES, VALUES + 1])[:, np.newaxis], (1, 1, 2, 3, 4), zarr_format)
    with pytest.raises(InputError, match="`timepoint`"):
        read(folder)
    np.testing.assert_array_equal(read(folder, Reading(timepoint=1))[0][0].T, VALUES + 1)


def test_scale_and_translation_of_level_and_multiscales_are_composed(tmp_path: Path) -> None:
    level = {
        "path": "0",
        "coordinateTransformations": [SCALE, {"type": "translation", "translation": [10.0, 20.0, 30.0]}],
    }
    outer = [{"type": "scale", "scale": [2.0, 3.0, 4.0]}, {"type": "translation", "translation": [1.0, 2.0, 3.0]}]
    _, grid = read(image(tmp_path / "a.zarr", datasets=[level], coordinateTransformations=outer))
    assert grid.spacing == (1.0, 1.5, 4.0)
    assert grid.affine[:3, 3].tolist() == [123.0, 62.0, 21.0]


@pytest.mark.parametrize(
    ("units", "spacing", "unit"),
    [
        (("nanometer",) * 3, (0.00025, 0.0005, 0.002), "um"),
        (("angstrom",) * 3, (0.000025, 0.00005, 0.0002), "um"),
        (("millimeter",) * 3, (0.25, 0.5, 2.0), "mm"),
        (("centimeter",) * 3, (2.5, 5.0, 20.0), "mm"),
        (("meter",) * 3, (250.0, 500.0, 2000.0), "mm"),
        (("inch",) * 3, (6.35, 12.7, 50.8), "mm"),
        (("millimeter", "micrometer", "micrometer"), (0.25, 0.5, 2000.0), "um"),
        ((None, None, None), (0.25, 0.5, 2.0), "unknown"),
        (("pixel",) * 3, (0.25, 0.5, 2.0), "unknown"),
    ],
)
def test_units_are_converted(
    tmp_path: Path, units: tuple[str | None, ...], spacing: tuple[float, ...], unit: str
) -> None:
    axes = [
        {"name": axis, "type": "space"} | ({} if name is None else {"unit": name})
        for axis, name in zip("zyx", units, strict=True)
    ]
    _, grid = read(image(tmp_path / "a.zarr", axes=axes))
    assert grid.unit == unit
    assert grid.spacing == pytest.approx(spacing, rel=1e-12)


def test_units_of_some_axes_alone_are_asked_for(tmp_path: Path) -> None:
    axes = [{"name": "z", "type": "space"}, *AXES[1:]]
    folder = image(tmp_path / "a.zarr", axes=axes)
    with pytest.raises(InputError, match=r"z in no unit.*`spacing`"):
        read(folder)
    assert_read(folder, Reading(spacing=(0.25, 0.5, 2), unit="um"))


def test_a_level_is_read_at_its_own_scale(tmp_path: Path) -> None:
    half = {"path": "s1", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 1.0, 0.5]}]}
    full = {"path": "0", "coordinateTransformations": [SCALE]}
    folder = image(tmp_path / "a.zarr", datasets=[full, half])
    write_array(folder / "s1", VALUES[:, ::2, ::2], (5, 3, 4), 2)
    values, grid = read(folder, Reading(level=1))
    np.testing.assert_array_equal(values[0].T, VALUES[:, ::2, ::2])
    assert grid.spacing == (0.5, 1.0, 2.0)
    with pytest.raises(UsageError, match="level: expected 0 to 1, got 2"):
        read(folder, Reading(level=2))


def test_version_one_has_five_axes_and_no_voxel_sizes(tmp_path: Path) -> None:
    folder = image(tmp_path / "a.zarr", version="0.1", axes=None, datasets=[{"path": "0"}])
    shutil.rmtree(folder / "0")
    write_array(folder / "0", VALUES[np.newaxis, np.newaxis], (1, 1, 2, 3, 4), 2, separator=".")
    with pytest.raises(InputError, match=r"voxel size along x .*`spacing`"):
        read(folder)
    assert_read(folder, Reading(spacing=(0.25, 0.5, 2), unit="um"))


def test_a_bare_array_is_read_with_axes_and_spacing(tmp_path: Path) -> None:
    write_array(tmp_path / "a.zarr", VALUES, (2, 3, 4), 3)
    with pytest.raises(InputError, match=r"named axes.*`axes`"):
        read(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="`spacing`"):
        read(tmp_path / "a.zarr", Reading(axes="ZYX"))
    assert_read(tmp_path / "a.zarr", Reading(axes="ZYX", spacing=(0.25, 0.5, 2), unit="um"))


def test_an_image_of_two_axes_is_one_plane(tmp_path: Path) -> None:
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.25]}]}
    folder = image(tmp_path / "a.zarr", axes=AXES[1:], datasets=[level])
    shutil.rmtree(folder / "0")
    write_array(folder / "0", VALUES[0], (3, 4), 2)
    values, grid = read(folder, Reading(spacing=(0.25, 0.5, 2), unit="um"))
    np.testing.assert_array_equal(values[0, :, :, 0].T, VALUES[0])
    assert grid.shape == (7, 6, 1)


def test_several_multiscales_are_chosen_by_name(tmp_path: Path) -> None:
    folder = image(tmp_path / "a.zarr")
    attributes = json.loads((folder / ".zattrs").read_text(encoding="utf-8"))
    first, second = attributes["multiscales"][0] | {"name": "raw"}, attributes["multiscales"][0] | {"name": "other"}
    write_json(folder / ".zattrs", {"multiscales": [second, first]})
    with pytest.raises(InputError, match="2: other, raw; choose one with `series`"):
        read(folder)
    assert_read(folder, Reading(series="raw"))
    with pytest.raises(UsageError, match="one of other, raw"):
        read(folder, Reading(series="none"))


# Plates and label images


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    path = tmp_path / "plate.zarr"
    write_group(path, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}, 2)
    for well, fields in (("A/1", "01"), ("B/2", "0")):
        write_group(path / well, {"well": {"images": [{"path": field} for field in fields]}}, 2)
        for field in fields:
            image(path / well / field)
    return path


def test_a_plate_lists_its_fields(plate: Path) -> None:
    with pytest.raises(InputError, match="a plate of 3: A/1/0, A/1/1, B/2/0; choose one with `series`"):
        read(plate)
    with pytest.raises(InputError, match="a well of 2: 0, 1; choose"):
        read(plate / "A" / "1")
    assert_read(plate, Reading(series="A/1/1"))
    assert_read(plate / "B/2/0")
    assert_read(plate / "B/2")
    with pytest.raises(UsageError, match=r"an image of plate\.zarr: A/1/0"):
        read(plate, Reading(series="C/1/0"))


def test_a_folder_of_several_images_is_no_volume_and_an_image_in_it_is(plate: Path) -> None:
    store = OmeZarrStore()
    assert [store.recognises(str(plate / path)) for path in ("", "A", "A/1", "A/1/0", "A/1/0/0")] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_series_of_a_converted_file_are_numbered(tmp_path: Path) -> None:
    write_group(tmp_path / "a.zarr", {"bioformats2raw.layout": 3}, 2)
    image(tmp_path / "a.zarr" / "0")
    assert_read(tmp_path / "a.zarr")
    image(tmp_path / "a.zarr" / "1")
    with pytest.raises(InputError, match="several images of 2: 0, 1"):
        read(tmp_path / "a.zarr")
    assert_read(tmp_path / "a.zarr", Reading(series="1"))


# Zip archives and URLs


@pytest.mark.parametrize("root", ["", "a.zarr/"])
def test_archives_are_read_in_place_also_a_volume_inside(tmp_path: Path, root: str, plate: Path) -> None:
    zip_folder(plate, tmp_path / "p.zarr.zip", root=root)
    assert_read(tmp_path / "p.zarr.zip" / "A/1/0")
    assert_read(tmp_path / "p.zarr.zip", Reading(series="B/2/0"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.zarr.zip", "plate.zarr"]


def test_a_chunk_that_inflates_to_more_than_it_can_hold_is_refused(tmp_path: Path) -> None:
    folder = image(tmp_path / "a.zarr")
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (".zgroup", ".zattrs", "0/.zarray"):
            archive.write(folder / name, name)
        archive.writestr("0/0/0/0", bytes(10**7))
    with pytest.raises(InputError, match="bytes a chunk, got 10000000 in 0/0/0/0"):
        read(tmp_path / "a.zarr.zip")


def test_a_truncated_archive_is_an_input_error(tmp_path: Path) -> None:
    zip_folder(image(tmp_path / "a.zarr"), tmp_path / "a.zarr.zip")
    content = (tmp_path / "a.zarr.zip").read_bytes()
    (tmp_path / "a.zarr.zip").write_bytes(content[: len(content) // 2])
    store = RoutedStore(NiftiStore(tmp_path), OmeZarrStore())
    with pytest.raises(InputError, match="expected a whole zip archive"):
        store.open(str(tmp_path / "a.zarr.zip"))


def test_a_url_is_read_with_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(image(tmp_path / "a.zarr", 3)), "/forms/a.zarr", recursive=True)
    assert_read("memory://forms/a.zarr")
    store = OmeZarrStore()
    assert store.recognises("memory://forms/a.zarr")
    assert not store.recognises("memory://forms/none.zarr")
    with store.open("memory://forms/a.zarr") as source:
        before = source.sha256()
        assert before == source.sha256()
    memory.pipe("/forms/a.zarr/0/c/0/0/0", b"longer" * 100)
    with store.open("memory://forms/a.zarr") as source:
        assert source.sha256() != before
    with pytest.raises(InputError, match="URL that fsspec opens"):
        read("no-such-protocol://a.zarr")
    with pytest.raises(OutputError, match="expected a path, got a URL"):
        store.create("memory://forms/b.zarr", Grid((1, 1, 1), np.eye(4), "um"), np.dtype(np.uint8))


# Bad files


def _damage(name: str) -> Any:
    def change(folder: Path) -> None:
        path = next(path for path in (folder / "0").rglob("0") if path.is_file())
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if name == "short" else b"no chunk at all")

    return change


def _array(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "0" / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return change


def _attributes(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        multiscale = json.loads((folder / ".zattrs").read_text(encoding="utf-8"))["multiscales"][0] | changes
        write_json(folder / ".zattrs", {"multiscales": [multiscale]})

    return change


def _scaled(*transformations: Any) -> Any:
    return _attributes(datasets=[{"path": "0", "coordinateTransformations": list(transformations)}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_damage("short"), "chunks that can be decoded"),
        (_damage("other"), "chunks that can be decoded"),
        (_array(compressor={"id": "zstd", "level": 1}), "chunks that can be decoded"),
        (_array(compressor={"id": "jpeg2k"}), "a codec that is known, got jpeg2k"),
        (_array(filters=[{"id": "pickle"}]), "a codec that is known, got pickle"),
        (_array(dtype="<c8", fill_value=None), "real numbers, got complex64"),
        (_array(dtype="|O"), "a.zarr: expected"),
        (_array(shape=[5, 6]), "a.zarr: expected"),
        (_array(shape=[5, 6, -7]), "shape of positive integers"),
        (_array(shape=[5, 0, 7]), "shape of positive integers"),
        (_array(chunks=[10**6, 10**6, 10]), "chunks of at most"),
        (_array(shape=None), "shape of positive integers"),
        (_attributes(datasets=[]), "datasets of the multiscales"),
        (_attributes(datasets=[{"path": "../b"}]), "paths inside the volume"),
        (_attributes(datasets=[{"path": "/etc"}]), "paths inside the volume"),
        (_attributes(datasets=[{"path": "1"}]), "an array that its metadata name"),
        (_attributes(datasets=[{"path": 3}]), "a path of the dataset"),
        (_attributes(axes=None), "a list of axes"),
        (_attributes(axes=AXES[1:]), "2 numbers of the scale"),
        (_scaled({"type": "rotation", "rotation": []}), "transformations scale and translation, got rotation"),
        (_scaled({"type": "scale", "scale": [1, 2]}), "3 numbers of the scale"),
        (_scaled({"type": "scale", "scale": [1, 2, "x"]}), "3 numbers of the scale"),
        (_scaled({"type": "scale", "scale": [0, 1, 1]}), "voxel size along z .*got 0 along z"),
        (_scaled({"type": "scale", "scale": [-1, 1, 1]}), "voxel size along z"),
        (_scaled(), "voxel size along x"),
        (lambda folder: (folder / ".zattrs").write_text("{", encoding="utf-8"), "metadata in JSON"),
        (lambda folder: (folder / ".zattrs").write_text("[]", encoding="utf-8"), "a JSON object"),
        (lambda folder: write_json(folder / ".zattrs", {}), "a group without multiscales"),
        (lambda folder: write_json(folder / ".zattrs", {"multiscales": []}), "a list of multiscales"),
    ],
)
def test_a_bad_volume_is_an_input_error_of_one_line(tmp_path: Path, change: Any, message: str) -> None:
    folder = image(tmp_path / "a.zarr")
    change(folder)
    store = RoutedStore(NiftiStore(tmp_path), OmeZarrStore())
    with pytest.raises(InputError, match=message) as caught, store.open(str(folder)) as source:
        source.read(Box.whole(source.grid.shape))
    assert "\n" not in str(caught.value)


def test_more_voxels_than_the_limit_are_refused(tmp_path: Path) -> None:
    folder = image(tmp_path / "a.zarr")
    _array(shape=[10**5, 10**5, 10**5])(folder)
    with pytest.raises(LimitError, match="got 1000000000000000"):
        read(folder)


# Other libraries


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_ngff_zarr_writes_is_read(tmp_path: Path, version: str) -> None:
    made = ngff_zarr.to_ngff_image(
        VALUES,
        dims=["z", "y", "x"],
        scale={"z": 2.0, "y": 0.5, "x": 0.25},
        translation={"z": 3.0, "y": 2.0, "x": 1.0},
        axes_units=dict.fromkeys("zyx", "micrometer"),
    )
    ngff_zarr.to_ngff_zarr(
        str(tmp_path / "a.ome.zarr"), ngff_zarr.to_multiscales(made, scale_factors=[2]), version=version
    )
    assert_read(tmp_path / "a.ome.zarr")
    assert read(tmp_path / "a.ome.zarr")[1].affine[:3, 3].tolist() == [1.0, 2.0, 3.0]
    assert read(tmp_path / "a.ome.zarr", Reading(level=1))[1].spacing == (0.5, 1.0, 4.0)


def write(path: Path | str, labels: LabelTable | None = TABLE, like: Any = None, size: int = 1) -> np.ndarray[Any, Any]:
    affine = np.diag([0.25, 0.5, 2.0, 1.0])
    affine[:3, 3] = (1.0, 2.0, 3.0)
    grid = Grid((7 * size, 6 * size, 5), affine, "um") if like is None else like.grid
    values = np.random.default_rng(1).choice(np.array([0, 1, 7], np.uint8), grid.shape)
    with OmeZarrStore().create(str(path), grid, np.dtype(np.uint8), like=like, labels=labels) as sink:
        sink.write(Box.whole(grid.shape), values)
        sink.commit()
    return values


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_written_passes_ngff_zarr(tmp_path: Path, version: str) -> None:
    image(tmp_path / "in.zarr", 2 if version == "0.4" else 3)
    with OmeZarrStore().open(str(tmp_path / "in.zarr")) as source:
        values = write(tmp_path / "mask.zarr", like=source)
    found = ngff_zarr.from_ngff_zarr(str(tmp_path / "mask.zarr"), validate=True, version=version)
    np.testing.assert_array_equal(np.asarray(found.images[0].data).T, values)
    assert found.images[0].scale == {"z": 2.0, "y": 0.5, "x": 0.25}
    assert found.images[0].axes_units == dict.fromkeys("zyx", "micrometer")


def test_labels_have_colours_names_and_every_level(tmp_path: Path) -> None:
    values = write(tmp_path / "mask.zarr", size=120)
    ome = attributes_of(tmp_path / "mask.zarr")
    assert ome["image-label"]["colors"][0] == {"label-value": 1, "rgba": [17, 34, 51, 255]}
    assert ome["image-label"]["properties"][1] == {"label-value": 7, "name": "soma, left"}
    levels = ome["multiscales"][0]["datasets"]
    scales = [level["coordinateTransformations"][0]["scale"] for level in levels]
    assert scales == [[2.0, 0.5, 0.25], [2.0, 1.0, 0.5], [2.0, 2.0, 1.0]]
    root = zarr.open_group(tmp_path / "mask.zarr", mode="r")
    for number in range(3):
        step = 2**number
        stored: Any = root[str(number)]
        np.testing.assert_array_equal(stored[...].T, values[::step, ::step])


def test_each_chunk_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put, keys = zarr.storage.LocalStore.set, []

    async def counted(self: Any, key: str, *args: Any) -> None:
        keys.append(key)
        await put(self, key, *args)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", counted)
    write(tmp_path / "mask.zarr", size=120)
    chunks = [key for key in keys if "/c/" in key]
    assert len(chunks) == len(set(chunks)) > 20


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_label_image_goes_into_the_image(tmp_path: Path, zarr_format: int) -> None:
    folder = image(tmp_path / "in.zarr", zarr_format)
    with OmeZarrStore().open(str(folder)) as source:
        before = source.sha256()
        write(folder / "labels" / "old", like=source)
        values = write(folder / "labels" / "vessels", like=source)
        write(folder / "labels" / "old", like=source)
    assert attributes_of(folder / "labels")["labels"] == ["old", "vessels"]
    ome = attributes_of(folder / "labels" / "vessels")
    assert ome["image-label"]["source"] == {"image": "../../"}
    found, grid = read(folder / "labels" / "vessels")
    np.testing.assert_array_equal(found[0], values)
    assert grid.spacing == (0.25, 0.5, 2.0)
    assert_read(folder)
    with OmeZarrStore().open(str(folder)) as source:
        assert source.sha256() == before
    assert {path.name for path in (folder / "labels").iterdir()} - {".zgroup", ".zattrs", "zarr.json"} == {
        "old",
        "vessels",
    }
    version = "0.4" if zarr_format == 2 else "0.5"
    checked = ngff_zarr.from_ngff_zarr(str(folder / "labels" / "vessels"), validate=True, version=version)
    np.testing.assert_array_equal(np.asarray(checked.images[0].data).T, values)


def test_metadata_that_are_kept_at_the_top_know_the_new_label_image(tmp_path: Path) -> None:
    made = ngff_zarr.to_ngff_image(VALUES, dims=["z", "y", "x"], scale={"z": 2.0, "y": 0.5, "x": 0.25})
    multiscales = ngff_zarr.to_multiscales(made, scale_factors=[])
    ngff_zarr.to_ngff_zarr(str(tmp_path / "a.zarr"), multiscales, version="0.5", consolidate_metadata=True)
    with OmeZarrStore().open(str(tmp_path / "a.zarr")) as source:
        write(tmp_path / "a.zarr" / "labels" / "vessels", like=source)
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    labels: Any = root["labels/vessels/0"]
    assert labels.shape == VALUES.shape


@pytest.mark.parametrize("name", ["in.zarr/0/x.zarr", "in.zarr/x.zarr", "in.zarr/labels/a/b", "in.zarr/0/labels/x"])
def test_no_volume_goes_elsewhere_into_an_image(tmp_path: Path, name: str) -> None:
    image(tmp_path / "in.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="labels/NAME"):
        write(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_label_image_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = image(tmp_path / "in.zarr")
    before = sorted(tmp_path.rglob("*"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr, "create_array", full)
    with pytest.raises(OutputError, match=r"in\.zarr|vessels"):
        write(folder / "labels" / "vessels")
    assert sorted(tmp_path.rglob("*")) == before


def test_directions_are_not_in_the_file_and_a_note_says_so(tmp_path: Path) -> None:
    grid = Grid((2, 2, 2), np.diag([-1.0, 1.0, 2.0, 1.0]), "um")
    with OmeZarrStore().create(str(tmp_path / "a.zarr"), grid, np.dtype(np.uint8)) as sink:
        assert len(sink.notes) == 1
        assert "directions" in sink.notes[0]


def test_channels_have_names(tmp_path: Path) -> None:
    grid = Grid((2, 3, 4), np.eye(4), "mm")
    values = np.random.default_rng(0).random((2, 2, 3, 4), np.float32)
    volume = Volume(values, grid)
    store, names = OmeZarrStore(), ("background", "vessel")
    with store.create(str(tmp_path / "p.zarr"), grid, values.dtype, channels=2, channel_names=names) as sink:
        sink.write(Box.whole(grid.shape), volume.array)
        sink.commit()
    found = ngff_zarr.from_ngff_zarr(str(tmp_path / "p.zarr"), validate=True, version="0.5")
    assert found.metadata.omero is not None
    assert [channel.label for channel in found.metadata.omero.channels] == list(names)
    with store.open(str(tmp_path / "p.zarr")) as source:
        assert source.channel_names == names
        np.testing.assert_array_equal(source.read(Box.whole(grid.shape)), values)


def test_a_source_of_another_store_gives_version_five(tmp_path: Path) -> None:
    memory = MemoryStore()
    memory.put("a", Volume(VALUES.T[np.newaxis], Grid((7, 6, 5), np.eye(4), "um")))
    with memory.open("a") as source:
        write(tmp_path / "m.zarr", like=source)
    assert attributes_of(tmp_path / "m.zarr")["version"] == "0.5"
