"""OME-NGFF metadata (0.1 to 0.5): which array is meant, its axes, voxel sizes and channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....domain.errors import InputError, UsageError
from ....domain.geometry.grid import unit_factor
from ....domain.reading import LENGTH_UNITS, Reading
from ....domain.stored_array import StoredArray
from .containers import Node, ZarrFiles, checked, joined

_SHOWN = 8  # fields in an error
_SPATIAL = "XYZ"
# Lengths of UDUNITS that OME-NGFF lists, and abbreviations in use, in metres.
_METRES: Mapping[str, float] = {
    "yoctometer": 1e-24,
    "zeptometer": 1e-21,
    "attometer": 1e-18,
    "femtometer": 1e-15,
    "picometer": 1e-12,
    "angstrom": 1e-10,
    "decimeter": 1e-1,
    "hectometer": 1e2,
    "kilometer": 1e3,
    "megameter": 1e6,
    "gigameter": 1e9,
    "terameter": 1e12,
    "petameter": 1e15,
    "exameter": 1e18,
    "zettameter": 1e21,
    "yottameter": 1e24,
    "inch": 0.0254,
    "foot": 0.3048,
    "yard": 0.9144,
    "mile": 1609.344,
    "parsec": 3.0857e16,
}
_COMMON: Mapping[str, str] = {
    "nanometer": "nm",
    "micrometer": "um",
    "micron": "um",
    "µm": "um",
    "μm": "um",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    **{name: name for name in LENGTH_UNITS},
}
_MM_IN_METRES = 1e-3
_UM_IN_MM = 1e-3


@dataclass(frozen=True)
class Image:
    """An image of a hierarchy: its node, the path of the array to read, and what its metadata state of that."""

    node: Node
    array: str
    axes: str = ""
    spacing: Mapping[str, float] | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    unit: str = "unknown"
    channel_names: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ("series", "level")

    def stored(self, shape: tuple[int, ...], dtype: np.dtype[Any], chunk: tuple[int, ...]) -> StoredArray:
        """Return what the file states of its array."""
        letters = self.axes if len(self.axes) == len(shape) else ""
        sources = dict.fromkeys(_SPATIAL, "coordinateTransformations")
        return StoredArray(
            shape,
            dtype,
            letters,
            self.spacing or {},
            self.unit,
            sources,
            self.origin,
            channel_names=self.channel_names,
            chunk=chunk,
            conflicts=self.conflicts,
            notes=self.notes,
            choices=self.choices,
        )


def is_image(node: Node) -> bool:
    """Return whether a node is an image, or an array without any statement of one."""
    return node.array is not None or "multiscales" in node.ome


def find_image(files: ZarrFiles, reading: Reading) -> Image:
    """Return the image that is meant.

    Raises:
        InputError: there is none, it does not keep to OME-NGFF, or a plate, a well or a file of several series is
            named.
        UsageError: the series or level is not there.
    """
    node, series = files.node(files.inside), reading.series
    if node is None:
        do = "name the folder that holds zarr.json or .zattrs"
        raise InputError(files.subject, expected="an OME-Zarr image", got="no metadata of zarr", do=do)
    if not is_image(node):
        node, series = _field(files, node, series)
    if node.array is not None:
        return Image(node, node.path, choices=("series",) if series is None else ())
    multiscale = _multiscale(node, series, files.subject)
    return _image(files, node, multiscale, reading.level or 0)


def _field(files: ZarrFiles, node: Node, series: str | None) -> tuple[Node, str | None]:
    """Return the image of a plate, a well, or a file of several series, that is named."""
    known = list(_fields(files, node))
    chosen = series if series is not None else known[0] if len(known) == 1 else None
    found = None if chosen is None else files.node(joined(node.path, chosen))
    if found is not None and is_image(found):
        return found, None
    shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    if series is not None:
        expected = f"an image of {files.subject}" + (f": {shown}" if known else "")
        raise UsageError("series", expected=expected, got=series[:80], do="choose another")
    if not known:
        do = "name an image inside it, or convert it to OME-Zarr"
        raise InputError(files.subject, expected="an OME-Zarr image", got="a group without multiscales", do=do)
    what = "a plate" if "plate" in node.ome else "a well" if "well" in node.ome else "several images"
    do = f"choose one with `series`, or name it: {files.subject}/{known[0]}"
    raise InputError(files.subject, expected="one image", got=f"{what} of {len(known)}: {shown}", do=do)


def _fields(files: ZarrFiles, node: Node) -> Sequence[str]:
    """Return the paths of the images of a plate, a well, or a file of several series, from the node."""
    ome = node.ome
    if "plate" in ome:
        wells = [str(well.get("path", "")) for well in _dicts(_dict(ome["plate"]).get("wells"))]
        return [joined(well, field) for well in wells for field in _images(files.node(joined(node.path, well)))]
    if "well" in ome:
        return _images(node)
    if "bioformats2raw.layout" in ome:
        listed = files.node(joined(node.path, "OME"))
        named = listed.ome.get("series") if listed is not None else None
        if isinstance(named, list) and named:
            return [str(name) for name in named]
        return _numbered(files, node)
    return []


def _numbered(files: ZarrFiles, node: Node) -> list[str]:
    found: list[str] = []
    while files.node(joined(node.path, str(len(found)))) is not None:
        found.append(str(len(found)))
    return found


def _images(well: Node | None) -> list[str]:
    if well is None:
        return []
    return [str(image.get("path", "")) for image in _dicts(_dict(well.ome.get("well")).get("images"))]


def _multiscale(node: Node, series: str | None, subject: str) -> Mapping[str, Any]:
    entries = _dicts(node.ome.get("multiscales"))
    if not entries:
        raise _bad(subject, "a list of multiscales", "none")
    names = [str(entry.get("name", number)) for number, entry in enumerate(entries)]
    if series is None:
        if len(entries) == 1:
            return entries[0]
        do = "choose one with `series`"
        raise InputError(subject, expected="one image", got=f"{len(entries)}: {', '.join(names[:_SHOWN])}", do=do)
    if series in names:
        return entries[names.index(series)]
    if series.isascii() and series.isdigit() and int(series) < len(entries):
        return entries[int(series)]
    raise UsageError("series", expected=f"one of {', '.join(names[:_SHOWN])}", got=series[:80], do="choose another")


def _image(files: ZarrFiles, node: Node, multiscale: Mapping[str, Any], level: int) -> Image:
    subject = files.subject
    datasets = _dicts(multiscale.get("datasets"))
    if not datasets:
        raise _bad(subject, "datasets of the multiscales", "none")
    if level >= len(datasets):
        raise UsageError("level", expected=f"0 to {len(datasets) - 1}", got=str(level), do="choose another")
    dataset = datasets[level]
    path = dataset.get("path")
    if not isinstance(path, str):
        raise _bad(subject, "a path of the dataset", repr(path)[:40])
    checked(path, subject)
    axes, units = _axes(multiscale, subject)
    transformations = [*_dicts(dataset.get("coordinateTransformations"))]
    has_scale = any(each.get("type") == "scale" for each in transformations)
    transformations += _dicts(multiscale.get("coordinateTransformations"))
    scale, shift = _placed(transformations, len(axes), subject)
    unit, factors, conflicts, notes = _units(axes, units)
    spacing = {
        letter: scale[at] * factors.get(letter, 1.0)
        for at, letter in enumerate(axes)
        if letter in _SPATIAL and has_scale
    }
    places = [shift[axes.index(x)] * factors.get(x, 1.0) if x in axes else 0.0 for x in _SPATIAL]
    origin = (places[0], places[1], places[2])
    names = _channel_names(node.ome.get("omero"))
    return Image(node, joined(node.path, path), axes, spacing, origin, unit, names, conflicts, notes)


def _axes(multiscale: Mapping[str, Any], subject: str) -> tuple[str, tuple[object, ...]]:
    """Return a letter and a unit for each axis. Versions before 0.3 have the axes TCZYX without saying so."""
    stated = multiscale.get("axes")
    if stated is None and str(multiscale.get("version", "0.1")) in ("0.1", "0.2"):
        stated = list("tczyx")
    if not isinstance(stated, list) or not stated:
        raise _bad(subject, "a list of axes", repr(stated)[:40])
    letters, units = "", []
    for axis in stated:
        known = axis if isinstance(axis, dict) else {"name": axis}
        letters += _letter(str(known.get("name", "")).upper(), known.get("type"))
        units.append(known.get("unit"))
    return letters, tuple(units)


def _letter(name: str, kind: object) -> str:
    if kind == "channel":
        return "C"
    if kind == "time":
        return "T"
    if kind == "space" or kind is None:
        return name if name in tuple(_SPATIAL) or (kind is None and name in ("C", "T")) else "?"
    return "?"


def _placed(transformations: Sequence[Mapping[str, Any]], count: int, subject: str) -> tuple[list[float], list[float]]:
    """Return scale and translation along each axis, of transformations applied one after the other."""
    scale, shift = [1.0] * count, [0.0] * count
    for each in transformations:
        kind = each.get("type")
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            do = "resample it to axes that are scaled and moved only"
            raise InputError(subject, expected="transformations scale and translation", got=str(kind)[:40], do=do)
        values = each.get(str(kind))
        if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
            raise _bad(subject, f"{count} numbers of the {kind}", repr(values)[:40])
        if kind == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            shift = [a * b for a, b in zip(shift, values, strict=True)]
        else:
            shift = [a + b for a, b in zip(shift, values, strict=True)]
    return scale, shift


def _units(axes: str, units: Sequence[object]) -> tuple[str, Mapping[str, float], tuple[str, ...], tuple[str, ...]]:
    """Return the unit of all spatial axes, the factor to it by letter, conflicts and notes."""
    stated = {letter: unit for letter, unit in zip(axes, units, strict=True) if letter in _SPATIAL}
    known = {letter: _length(unit) for letter, unit in stated.items()}
    found = {letter: length for letter, length in known.items() if length is not None}
    odd = sorted({str(unit)[:20] for letter, unit in stated.items() if unit is not None and known[letter] is None})
    notes = (f"the unit {', '.join(odd)} is no length that is known",) if odd else ()
    if not found:
        return "unknown", {}, (), notes
    if len(found) < len(stated):
        words = [f"{letter.lower()} in {stated[letter] or 'no unit'}" for letter in sorted(stated)]
        return "unknown", {}, (f"voxel sizes along {', '.join(words)}",), ()
    unit = found[min(found)][0]
    factors = {letter: factor * unit_factor(own, unit) for letter, (own, factor) in found.items()}
    return unit, factors, (), notes


def _length(unit: object) -> tuple[str, float] | None:
    """Return mm or um, and the factor to it, of the name of a length."""
    name = str(unit).lower() if isinstance(unit, str) else ""
    name = name.replace("metre", "meter")
    if name in _COMMON:
        return LENGTH_UNITS[_COMMON[name]]
    if name not in _METRES:
        return None
    in_mm = _METRES[name] / _MM_IN_METRES
    return ("um", in_mm / _UM_IN_MM) if in_mm < 1 else ("mm", in_mm)


def _channel_names(omero: object) -> tuple[str, ...]:
    labels = [channel.get("label") for channel in _dicts(_dict(omero).get("channels"))]
    names = tuple(label for label in labels if isinstance(label, str) and label)
    return names if len(names) == len(labels) else ()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _bad(subject: str, expected: str, got: str) -> InputError:
    return InputError(subject, expected=expected, got=got, do="correct its metadata, or write it again")
