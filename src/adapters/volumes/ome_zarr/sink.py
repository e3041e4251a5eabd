"""Writing of OME-Zarr: an image or a label image with a pyramid, each chunk once."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError, OutputError
from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ....domain.volume_names import OME_ZARR, ZARR_FILES, VolumeNames
from ...arrays import package
from ...disk import write_whole
from ...spool import SpooledSink, dropped, publish
from .containers import EXTRA, Folder, Node, is_url

_NAMES = VolumeNames((OME_ZARR,))
CHUNK = (64, 128, 128)  # voxels along z, y and x: a megavoxel
_SMALL = 256  # a level of which x and y are no longer than this is the last
_VERSIONS = {2: "0.4", 3: "0.5"}
_UNITS = {"um": "micrometer", "mm": "millimeter"}
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Statement:
    """What an image's metadata state.

    Args:
        grid: of the volume.
        channel_names: one a channel, or none.
        labels: of a label image.
        zarr_format: 2 or 3.
        inside: whether it is a label image of another image.
    """

    grid: Grid
    channel_names: tuple[str, ...]
    labels: LabelTable | None
    zarr_format: int
    inside: bool = False

    def attributes(self, name: str, axes: str, factors: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return the attributes of the image's group; ``factors`` are those of each level along z, y and x."""
        version = {"version": _VERSIONS[self.zarr_format]}
        own = version if self.zarr_format == 2 else {}
        lead = [1.0] * (len(axes) - 3)
        place = [0.0] * len(lead) + [float(edge) for edge in self.grid.affine[2::-1, 3]]
        spacing = [float(edge) for edge in reversed(self.grid.spacing)]
        datasets = [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": lead + [a * b for a, b in zip(spacing, along, strict=True)]},
                    {"type": "translation", "translation": place},
                ],
            }
            for level, along in enumerate(factors)
        ]
        multiscale = {"axes": [self._axis(letter) for letter in axes], "datasets": datasets, "name": name, **own}
        found: dict[str, Any] = {"multiscales": [multiscale | {"type": "nearest"}]}
        if self.labels is not None:
            found["image-label"] = own | self._image_label(self.labels)
        if self.channel_names:
            found["omero"] = own | {"channels": [_channel(channel) for channel in self.channel_names]}
        return found if self.zarr_format == 2 else {"ome": version | found}

    def _axis(self, letter: str) -> dict[str, str]:
        if letter == "c":
            return {"name": letter, "type": "channel"}
        unit = _UNITS.get(self.grid.unit)
        return {"name": letter, "type": "space"} | ({"unit": unit} if unit else {})

    def _image_label(self, table: LabelTable) -> dict[str, Any]:
        colors = [{"label-value": label.value, "rgba": [*label.rgb, 255]} for label in table.labels]
        properties = [{"label-value": label.value, "name": label.name} for label in table.labels]
        stated = {key: value for key, value in (("colors", colors), ("properties", properties)) if value}
        return stated | ({"source": {"image": "../../"}} if self.inside else {})


def _channel(name: str) -> dict[str, Any]:
    """Return how a viewer shows a channel of probabilities; OME-NGFF has no channel without it."""
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    return {"label": name, "color": "FFFFFF", "active": True, "window": window}


def new_sink(
    reference: str,
    grid: Grid,
    dtype: np.dtype[Any],
    channels: int,
    channel_names: tuple[str, ...],
    labels: LabelTable | None,
    zarr_format: int,
    digest: Callable[[Path], str],
) -> SpooledSink:
    """Begin a volume; see VolumeStore.create."""
    path = Path(reference)
    package("zarr", EXTRA, path.name or reference)
    if is_url(reference):
        do = "write it to a path, then copy the folder"
        raise OutputError(path.name or reference, expected="a path", got="a URL", do=do)
    notes = notes_of(grid)
    image = image_of_labels(path)
    if image is None:
        statement = Statement(grid, channel_names, labels, zarr_format)
        write = partial(_write, statement, path.name)
        return SpooledSink(path, grid, dtype, channels, write=write, digest=digest, notes=notes)
    statement = Statement(grid, channel_names, labels, image.zarr_format, inside=True)
    write = partial(_write, statement, path.name)
    folder = path.parent.parent
    moving = partial(_publish_label, folder, image.zarr_format)
    return SpooledSink(path, grid, dtype, channels, write=write, digest=digest, notes=notes, beside=folder, move=moving)


def notes_of(grid: Grid) -> tuple[str, ...]:
    """Return what the format cannot say of a grid."""
    straight = np.diag([*grid.spacing, 1.0])
    straight[:3, 3] = grid.affine[:3, 3]
    if np.array_equal(straight, grid.affine):
        return ()
    return ("OME-Zarr states voxel sizes and an origin: the directions of the axes are not in the file",)


def image_of_labels(path: Path) -> Node | None:
    """Return the image that a label image belongs to; None for a volume that stands alone.

    Raises OutputError for any other place inside a volume of zarr.
    """
    above = next((folder for folder in path.absolute().parents if _is_zarr(folder)), None)
    folder = path.absolute().parent
    if above is None:
        if folder.name == "labels" and _NAMES.is_inside(str(path)):
            do = "write the image first, or name a volume of its own"
            raise OutputError(path.name, expected="an OME-Zarr image", got=f"none at {folder.parent}", do=do)
        return None
    image = _node(folder.parent) if folder.name == "labels" else None
    if image is not None and "multiscales" in image.ome and path.name and not path.name.startswith("."):
        return image
    expected, got = "a place of its own, or labels/NAME of an image", f"a place inside {above.name}"
    raise OutputError(path.name, expected=expected, got=got, do=f"name it {above.name}/labels/NAME")


def _is_zarr(folder: Path) -> bool:
    if folder.is_file() and _NAMES.ending(folder.name) in OME_ZARR.single:
        return True
    return any((folder / name).is_file() for name in ZARR_FILES)


def _node(folder: Path) -> Node | None:
    with suppress(InputError):
        return Folder(folder.name, folder).node("")
    return None


def _write(statement: Statement, name: str, values: NDArray[Any], folder: Path) -> None:
    """Write a volume ``(C, x, y, z)`` as a folder or archive of a name."""
    if _NAMES.ending(name) not in OME_ZARR.single:
        _write_tree(statement, name, values, folder / name)
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".zarr.") as hidden:
        tree = Path(hidden) / "tree"
        _write_tree(statement, _NAMES.stem(name), values, tree)
        _pack(tree, folder / name)


def _write_tree(statement: Statement, name: str, values: NDArray[Any], root: Path) -> None:
    levels = new_tree(statement, name, values.shape, values.dtype, root)
    _fill(levels[0], values)
    thin_levels(levels)


def new_tree(statement: Statement, name: str, shape: Sequence[int], dtype: np.dtype[Any], root: Path) -> list[Any]:
    """Make the folder of a volume ``(C, x, y, z)`` without chunks, and return the array of each level."""
    zarr = package("zarr", EXTRA, name)
    several, v2 = shape[0] > 1, statement.zarr_format == 2
    axes = "czyx" if several else "zyx"
    full = (shape[3], shape[2], shape[1])
    factors = _levels(full, statement.grid.spacing[::-1])
    attributes = statement.attributes(_NAMES.stem(name), axes, factors)
    store = zarr.storage.LocalStore(root)
    zarr.create_group(store, zarr_format=statement.zarr_format, attributes=attributes)
    lead = (shape[0],) if several else ()
    levels = []
    for level, along in enumerate(factors):
        edges = tuple(-(-edge // factor) for edge, factor in zip(full, along, strict=True))
        array = zarr.create_array(
            store,
            name=str(level),
            shape=(*lead, *edges),
            chunks=(*(1 for _ in lead), *map(min, CHUNK, edges)),
            dtype=dtype,
            zarr_format=statement.zarr_format,
            fill_value=0,
            compressors=_blosc() if v2 else "auto",
            chunk_key_encoding={"name": "v2" if v2 else "default", "separator": "/"},
            dimension_names=None if v2 else list(axes),
        )
        levels.append(array)
    return levels


def thin_levels(levels: Sequence[Any]) -> None:
    """Write every level but the first from the one before."""
    for finer, array in pairwise(levels):
        steps = [-(-before // now) for before, now in zip(finer.shape[-3:], array.shape[-3:], strict=True)]
        _thin(finer, array, steps)


def _blosc() -> Any:
    """The compressor that every reader of zarr format 2 has."""
    from numcodecs import Blosc  # type: ignore[import-untyped, unused-ignore]

    return Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)


def _levels(shape: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, int, int]]:
    """Return the factor along z, y and x of each level: x and y are halved, z where its voxels are not longer."""
    found = [(1, 1, 1)]
    while max(-(-edge // factor) for edge, factor in zip(shape[1:], found[-1][1:], strict=True)) > _SMALL:
        z, y, x = found[-1]
        longest = max(spacing[1] * y, spacing[2] * x)
        halves_z = spacing[0] * z <= longest and shape[0] // z > 1
        found.append((z * 2 if halves_z else z, y * 2 if shape[1] // y > 1 else y, x * 2 if shape[2] // x > 1 else x))
    return found


def _fill(array: Any, values: NDArray[Any]) -> None:
    """Write the first level row by row of chunks."""
    deep, high = array.chunks[-3:-1]
    for channel, z, y in product(range(len(values)), range(0, values.shape[3], deep), range(0, values.shape[2], high)):
        row = np.array(values[channel, :, y : y + high, z : z + deep].T, order="C")
        index = (slice(z, z + deep), slice(y, y + high), slice(None))
        array[(channel, *index) if len(values) > 1 else index] = row
        dropped(values)


def _thin(finer: Any, array: Any, steps: Sequence[int]) -> None:
    """Write a level from the one before, chunk by chunk: every other voxel, so that labels stay labels."""
    lead = array.ndim - 3
    every = [1] * lead + list(steps)
    for start in product(*(range(0, edge, part) for edge, part in zip(array.shape, array.chunks, strict=True))):
        stop = [min(at + part, edge) for at, part, edge in zip(start, array.chunks, array.shape, strict=True)]
        taken = tuple(slice(at * step, end * step) for at, end, step in zip(start, stop, every, strict=True))
        thin = tuple(slice(None, None, step) for step in every)
        array[tuple(map(slice, start, stop))] = finer[taken][thin]


def _pack(tree: Path, path: Path) -> None:
    """Pack a folder as an archive without compression: the same bytes for the same files, metadata first."""
    files = sorted(file for file in tree.rglob("*") if file.is_file())
    files.sort(key=lambda file: file.name not in ZARR_FILES)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(tree).as_posix(), _ZIP_DATE)
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while part := source.read(2**20):
                    target.write(part)


def _publish_label(image: Path, zarr_format: int, folder: Path, path: Path) -> None:
    """Move a label image to its place in an image, then list it there; a failure leaves nothing."""
    labels, made = path.parent, not path.parent.exists()
    labels.mkdir(exist_ok=True)
    try:
        publish(folder, path)
    except BaseException:
        if made:
            with suppress(OSError):
                labels.rmdir()
        raise
    _list_label(labels, path.name, zarr_format)
    shutil.rmtree(folder)  # it is empty, or holds the label image that was replaced
    _consolidate(image, zarr_format)


def _list_label(labels: Path, name: str, zarr_format: int) -> None:
    """Add a name to the list of an image's labels, which appears whole."""
    node = _node(labels)
    attributes = dict(node.attributes) if node is not None else {}
    if zarr_format == 2:
        attributes["labels"] = _with(attributes.get("labels"), name)
        if not (labels / ".zgroup").exists():
            _replace(labels / ".zgroup", {"zarr_format": 2})
        _replace(labels / ".zattrs", attributes)
        return
    ome = dict(attributes.get("ome") or {"version": _VERSIONS[3]})
    ome["labels"] = _with(ome.get("labels"), name)
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes | {"ome": ome}}
    _replace(labels / "zarr.json", group)


def _with(names: object, name: str) -> list[object]:
    known = list(names) if isinstance(names, list) else []
    return known if name in known else [*known, name]


def _consolidate(image: Path, zarr_format: int) -> None:
    """Renew the copy of all metadata that some writers keep at the top, where there is one."""
    above = next((folder for folder in (image, *image.parents) if _is_consolidated(folder)), None)
    if above is None:
        return
    zarr = package("zarr", EXTRA, image.name)
    with warnings.catch_warnings():  # that it is no part of format 3, and of other files in the folder
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(zarr.storage.LocalStore(above), zarr_format=zarr_format)


def _is_consolidated(folder: Path) -> bool:
    if (folder / ".zmetadata").is_file():
        return True
    with suppress(OSError, ValueError):
        return bool(json.loads((folder / "zarr.json").read_bytes()).get("consolidated_metadata"))
    return False


def _replace(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=2).encode())
