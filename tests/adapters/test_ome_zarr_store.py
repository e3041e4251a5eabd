"""The OME-Zarr store keeps the volume store's contract; the witness writes and reads JSON and chunks by hand."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from itertools import count, product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.domain.geometry.grid import Grid
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.volume_store import VolumeStoreContract

UNITS = {"um": "micrometer", "mm": "millimeter"}
_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "blosc": imagecodecs.blosc_decode,
    "zstd": imagecodecs.zstd_decode,
    "bytes": bytes,
}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_array(
    folder: Path,
    array: np.ndarray[Any, Any],
    chunks: tuple[int, ...],
    zarr_format: int,
    *,
    order: str = "C",
    separator: str = "/",
    encode: Callable[[bytes], bytes] = bytes,
    compressor: object = None,
) -> None:
    """Write an array of zarr as raw chunks."""
    v2 = {
        "zarr_format": 2,
        "shape": array.shape,
        "chunks": chunks,
        "dtype": array.dtype.str,
        "compressor": compressor,
        "fill_value": 0,
        "order": order,
        "filters": None,
        "dimension_separator": separator,
    }
    v3 = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": array.shape,
        "data_type": array.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "big" if array.dtype.byteorder == ">" else "little"}}],
        "attributes": {},
    }
    write_json(folder / (".zarray" if zarr_format == 2 else "zarr.json"), v2 if zarr_format == 2 else v3)
    for number in product(*(range(-(-edge // part)) for edge, part in zip(array.shape, chunks, strict=True))):
        full = np.zeros(chunks, array.dtype)
        part = array[tuple(slice(n * c, (n + 1) * c) for n, c in zip(number, chunks, strict=True))]
        full[tuple(map(slice, part.shape))] = part
        name = separator.join(map(str, number))
        path = folder / (name if zarr_format == 2 else f"c{separator}{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(full.tobytes(order="F" if order == "F" else "C")))


def image_attributes(grid: Grid, several: bool, version: str, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the attributes of an image of one level, of which scale and place are in part of the multiscales."""
    unit = {"unit": UNITS[grid.unit]} if grid.unit in UNITS else {}
    lead: list[dict[str, Any]] = [{"name": "c", "type": "channel"}] if several else []
    scale, place = [1.0] * several + list(reversed(grid.spacing)), [0.0] * several + grid.affine[2::-1, 3].tolist()
    multiscale = {
        "axes": lead + [{"name": axis, "type": "space"} | unit for axis in "zyx"],
        "datasets": [
            {
                "path": "full",
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": place},
                ],
            }
        ],
    }
    found: dict[str, Any] = {"multiscales": [multiscale]}
    if names:
        found["omero"] = {"channels": [{"label": name} for name in names]}
    return {"ome": {"version": version} | found} if version == "0.5" else found


def write_group(folder: Path, attributes: dict[str, Any], zarr_format: int) -> None:
    if zarr_format == 3:
        write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
        return
    write_json(folder / ".zgroup", {"zarr_format": 2})
    write_json(folder / ".zattrs", attributes)


def write_volume(folder: Path, volume: Volume, zarr_format: int) -> None:
    version = "0.5" if zarr_format == 3 else "0.4"
    several = volume.channels > 1
    write_group(folder, image_attributes(volume.grid, several, version, volume.channel_names), zarr_format)
    array = volume.array.transpose(0, 3, 2, 1)
    array = array if several else array[0]
    chunks = tuple(max(1, edge // 2) for edge in array.shape)
    write_array(folder / "full", array, chunks, zarr_format)


def zip_folder(folder: Path, path: Path, *, root: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, root + file.relative_to(folder).as_posix())


def read_array(folder: Path) -> np.ndarray[Any, Any]:
    """Read an array as the store writes it: whole chunks, C order, one codec."""
    old = (folder / ".zarray").exists()
    stated = json.loads((folder / (".zarray" if old else "zarr.json")).read_text(encoding="utf-8"))
    chunks = stated["chunks"] if old else stated["chunk_grid"]["configuration"]["chunk_shape"]
    dtype = np.dtype(stated["dtype"] if old else stated["data_type"])
    codecs = [(stated["compressor"] or {"id": "bytes"})["id"]] if old else [codec["name"] for codec in stated["codecs"]]
    array = np.full(stated["shape"], stated["fill_value"], dtype)
    for number in product(*(range(-(-edge // part)) for edge, part in zip(array.shape, chunks, strict=True))):
        path = folder.joinpath(*([] if old else ["c"]), *map(str, number))
        if path.exists():
            content = path.read_bytes()
            for codec in reversed(codecs):
                content = _DECODERS[codec](content)
            place = tuple(slice(n * c, (n + 1) * c) for n, c in zip(number, chunks, strict=True))
            part = array[place]
            part[...] = np.frombuffer(content, dtype).reshape(chunks)[tuple(map(slice, part.shape))]
    return array


def attributes_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any]
    if (folder / ".zattrs").exists():
        found = json.loads((folder / ".zattrs").read_text(encoding="utf-8"))
        return found
    nested = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    found = nested.get("ome", nested)
    return found


def read_volume(folder: Path) -> Volume:
    """Read the first level of an image."""
    ome = attributes_of(folder)
    multiscale = ome["multiscales"][0]
    dataset = multiscale["datasets"][0]
    array = read_array(folder / dataset["path"])
    values = array.transpose(range(array.ndim)[::-1]) if array.ndim == 3 else array.transpose(0, 3, 2, 1)
    scale, translation = dataset["coordinateTransformations"]
    affine = np.diag([*scale["scale"][::-1][:3], 1.0])
    affine[:3, 3] = translation["translation"][::-1][:3]
    units = {axis.get("unit") for axis in multiscale["axes"] if axis["type"] == "space"}
    unit = {"micrometer": "um", "millimeter": "mm", None: "unknown"}[units.pop()]
    table = None
    if "image-label" in ome:
        colours = {each["label-value"]: each["rgba"] for each in ome["image-label"]["colors"]}
        table = LabelTable(
            tuple(
                Label(each["label-value"], each["name"], "#" + bytes(colours[each["label-value"]][:3]).hex())
                for each in ome["image-label"]["properties"]
            )
        )
    names = tuple(channel["label"] for channel in ome.get("omero", {}).get("channels", ()))
    values = values if values.ndim == 4 else values[np.newaxis]
    return Volume(values, Grid(values.shape[1:], affine, unit), names, table)


class _FolderContract(VolumeStoreContract):
    geometry = "spacing"
    keeps_channel_names = True
    keeps_labels = True
    outlives_replacement = False
    zarr_format: int
    ending = ".ome.zarr"

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        return OmeZarrStore()

    def new_reference(self) -> str:
        return str(self.folder / f"volume_{next(self.numbers)}{self.ending}")

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        write_volume(Path(reference), volume, self.zarr_format)
        return reference

    def place_foreign(self) -> str:
        reference = self.new_reference()
        write_json(Path(reference) / "package.json", {})
        return reference

    def peek(self, reference: str) -> Volume | None:
        return read_volume(Path(reference)) if Path(reference).exists() else None

    def occupied(self) -> set[str]:
        return {str(path.resolve()) for path in self.folder.iterdir()}


class TestFormatTwo(_FolderContract):
    zarr_format = 2


class TestFormatThree(_FolderContract):
    zarr_format = 3


class TestArchives(_FolderContract):
    zarr_format = 3
    ending = ".zarr.zip"
    outlives_replacement = True

    def place(self, volume: Volume) -> str:
        reference, number = self.new_reference(), next(self.numbers)
        folder = Path(tempfile.mkdtemp(dir=self.folder.parent))
        write_volume(folder, volume, 2 if number % 2 else 3)
        zip_folder(folder, Path(reference), root="scan.zarr/" if number % 3 else "")
        return reference

    def place_foreign(self) -> str:
        reference = self.new_reference()
        with zipfile.ZipFile(reference, "w") as archive:
            archive.writestr("a.txt", "a")
        return reference

    def peek(self, reference: str) -> Volume | None:
        if not Path(reference).exists():
            return None
        folder = Path(tempfile.mkdtemp(dir=self.folder.parent))
        with zipfile.ZipFile(reference) as archive:
            archive.extractall(folder)
            root = folder / "scan.zarr"
        return read_volume(root if root.exists() else folder)
