"""Volumes as napari's layers and back, and the reader and writer that napari calls.

A layer is indexed (z, y, x) and lies in a world of the same order; a volume is indexed (x, y, z), in RAS+. So every
matrix between them is reversed along both axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from ...application import Application
from ...domain.errors import InputError
from ...domain.geometry.grid import Box, Grid, shape3
from ...domain.labels.label_map import Label, LabelTable

LayerData = tuple[Any, dict[str, Any], str]
_SLAB = 16  # slices that are copied at a time
_PIXEL = "pixel"


def reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a function that reads a volume, or None for what voxport does not read; napari's reader hook."""
    first = path if isinstance(path, str) else path[0]
    application = Application.build()
    named = application.volumes.names.is_volume(PurePath(first).name)
    return partial(_read, application) if named or application.volumes.recognises(first) else None


def _read(application: Application, path: str | Sequence[str]) -> list[LayerData]:
    """Return a layer for each channel of each volume. Raises VoxportError."""
    layers: list[LayerData] = []
    for reference in [path] if isinstance(path, str) else path:
        with application.volumes.open(reference) as source:
            values = source.read(Box.whole(source.grid.shape))
            stem = PurePath(application.volumes.names.stem(reference)).name
            names = source.channel_names or tuple(f"channel {number}" for number in range(source.channels))
            for channel, name in zip(values, names, strict=True):
                title = stem if source.channels == 1 else f"{stem} {name}"
                layers.append((channel.transpose(), {"name": title, **placed(source.grid)}, "image"))
    return layers


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer, with the names of its features; napari's writer hook. Raises VoxportError."""
    layer = Layer.create(data, {name: value for name, value in meta.items() if name != "colormap"}, "labels")
    application = Application.build()
    kind = np.dtype(np.uint8 if int(np.max(layer.data, initial=0)) < 2**8 else np.uint16)
    store(layer, path, application, dtype=kind, labels=_table(layer, meta))
    return [path]


def _table(layer: Any, meta: dict[str, Any]) -> LabelTable | None:
    """The names and colours of a layer's labels, where its features have them as `shown` writes them."""
    features = meta.get("features")
    if features is None or not {"index", "name", "colour"} <= set(features):
        return None
    present = set(np.unique(layer.data).tolist())
    rows = zip(features["index"], features["name"], features["colour"], strict=True)
    table = tuple(Label(int(value), str(name), str(colour)) for value, name, colour in rows)
    return LabelTable(table) if table and present <= {0, *(label.value for label in table)} else None


def placed(grid: Grid) -> dict[str, Any]:
    """Return the arguments that place a layer where a grid lies."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = grid.affine[:3, :3][::-1, ::-1], grid.affine[:3, 3][::-1]
    unit = _PIXEL if grid.unit == "unknown" else grid.unit
    return {"affine": affine, "units": (unit,) * 3}


def grid_of(layer: Any) -> Grid:
    """Return the grid of a layer of three dimensions.

    Raises:
        InputError: another number of dimensions, units that are no lengths, or several ones.
    """
    shape = np.shape(values_of(layer))
    if len(shape) != 3 or getattr(layer, "rgb", False):
        got = "a picture in colours" if getattr(layer, "rgb", False) else f"{len(shape)} of them"
        do = "split it into layers of three dimensions, e.g. with Split Stack"
        raise InputError(layer.name, expected="three dimensions", got=got, do=do)
    origin = np.asarray(layer.data_to_world((0, 0, 0)))
    steps = [np.asarray(layer.data_to_world(tuple(row))) - origin for row in np.eye(3)]
    affine, (factor, unit) = np.eye(4), _unit(layer)
    affine[:3, :3], affine[:3, 3] = factor * np.transpose(steps)[::-1, ::-1], factor * origin[::-1]
    return Grid(shape3(shape[::-1]), affine, unit)


def values_of(layer: Any) -> Any:
    """Return a layer's values, of a pyramid those of full resolution."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def _unit(layer: Any) -> tuple[float, str]:
    """Return a factor and the unit in which lengths times the factor are."""
    units = set(layer.units)
    if len(units) == 1:
        (unit,) = units
        if str(unit) == _PIXEL:
            return 1.0, "unknown"
        if unit.is_compatible_with("mm"):
            known = "mm" if str(unit) in ("millimeter", "centimeter", "meter") else "um"
            return float((1 * unit).to(known).magnitude), known
    got = ", ".join(sorted(map(str, units)))
    raise InputError(layer.name, expected="one unit of length for all axes", got=got, do="set layer.units")


def store(
    layer: Any,
    reference: str,
    application: Application,
    *,
    dtype: np.dtype[Any] | None = None,
    labels: LabelTable | None = None,
) -> None:
    """Write a layer as a volume, slab by slab. Raises VoxportError."""
    grid, values = grid_of(layer), values_of(layer)
    kind = dtype or _stored(np.dtype(values.dtype))
    with application.volumes.create(reference, grid, kind, labels=labels) as sink:
        for first in range(0, grid.shape[2], _SLAB):
            last = min(first + _SLAB, grid.shape[2])
            box = Box((0, 0, first), (*grid.shape[:2], last))
            sink.write(box, np.asarray(values[first:last]).transpose().astype(kind, copy=False))
        sink.commit()


def _stored(kind: np.dtype[Any]) -> np.dtype[Any]:
    if kind.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if kind == np.float16 else kind


def shown(labels: NDArray[Any], table: LabelTable, source: Any, rows: Sequence[dict[str, Any]], name: str) -> Labels:
    """Return a layer of labels (x, y, z) on the voxels of ``source``, with names, colours and statistics as features.

    ``rows`` are the statistics, a mapping for each label.
    """
    import pandas as pd
    from napari.utils.colormaps import DirectLabelColormap

    colours = {label.value: label.colour for label in table.labels}
    background: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    features = [{"index": row["value"], **row, "colour": colours[row["value"]]} for row in rows]
    place = {key: getattr(source, key) for key in ("scale", "translate", "rotate", "shear", "affine", "units")}
    return Labels(
        labels.transpose(),
        name=name,
        features=pd.DataFrame(features),
        colormap=DirectLabelColormap(color_dict=background | colours),
        **place,
    )
