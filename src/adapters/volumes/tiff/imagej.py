"""Voxel sizes in the tags of a TIFF file and in ImageJ's description."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .stated import Stated
from .units import grid_unit, in_one_unit

_RESOLUTION_TAGS = {"X": (282, "XResolution"), "Y": (283, "YResolution")}
_RESOLUTION_UNIT = 296
_TAG_UNITS = {2: "inch", 3: "cm"}
# Dots per inch of printers and screens, which writers fill in where nothing was measured.
_FILLERS = (1, 72, 75, 90, 96, 100, 120, 144, 150, 200, 300, 600, 1200)
_INCH_IN_CM = 2.54


def tag_sizes(page: Any) -> Stated:
    """Return the voxel sizes along x and y in the tags of a page.

    Dots per inch that writers fill in by default are no statement.
    """
    unit = _TAG_UNITS.get(page.tags.valueof(_RESOLUTION_UNIT, default=1))
    edges = _edges(page)
    if unit is None or any(_is_filler(edge, unit) for edge in edges.values()):
        return Stated()
    return _stated({letter: (edge, unit) for letter, edge in edges.items()}, _tag_sources(page, edges))


def imagej_sizes(meta: Mapping[str, Any], page: Any) -> Stated:
    """Return voxel sizes as ImageJ states them: x and y as pixels a unit in tags, z and the unit in the description."""
    tag_unit = _TAG_UNITS.get(page.tags.valueof(_RESOLUTION_UNIT, default=1), "pixel")
    unit = str(meta.get("unit") or tag_unit)
    edges = _edges(page)
    sources = dict(_tag_sources(page, edges)) | {"Z": "ImageJ spacing"}
    if (depth := _number(meta.get("spacing"))) is not None:
        edges["Z"] = depth
    if grid_unit(unit) is None:
        if all(edge == 1 for edge in edges.values()):  # not calibrated
            return Stated(sources=sources)
    elif "unit" not in meta and any(_is_filler(edges.get(letter, math.nan), unit) for letter in "XY"):
        return Stated(sources=sources)
    stated = _stated({letter: (edge, unit) for letter, edge in edges.items()}, sources)
    if grid_unit(unit) is not None and edges.get("X") == edges.get("Y") == 1:
        note = f"the tags state 1 pixel per {stated.unit}, as some writers also do where nothing was measured"
        return replace(stated, notes=(note,))
    return stated


def _stated(lengths: Mapping[str, tuple[float, str]], sources: Mapping[str, str]) -> Stated:
    spacing, unit = in_one_unit(lengths) or ({}, "unknown")
    return Stated(spacing, unit, sources)


def _edges(page: Any) -> dict[str, float]:
    """Return the edges of a pixel in the tags, in units of the file; those without a number go."""
    found = {}
    for letter, (code, _) in _RESOLUTION_TAGS.items():
        value = page.tags.valueof(code, default=None)
        if isinstance(value, tuple) and len(value) == 2 and value[0] > 0 and value[1] > 0:
            found[letter] = value[1] / value[0]
    return found


def _tag_sources(page: Any, edges: Mapping[str, float]) -> dict[str, str]:
    return {letter: name for letter, (code, name) in _RESOLUTION_TAGS.items() if letter in edges or code in page.tags}


def _is_filler(edge: float, unit: str) -> bool:
    per_unit = 1 / edge if edge > 0 else 0
    per_inch = per_unit * (_INCH_IN_CM if unit == "cm" else 1)
    return per_unit == 1 or any(math.isclose(per_inch, known, rel_tol=1e-3) for known in _FILLERS)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
