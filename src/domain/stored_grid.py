"""The grid of a stored array: voxel sizes, unit and place in space that its file and the user state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, UsageError
from .geometry.grid import FloatArray, Grid, shape3
from .reading import LENGTH_UNITS, LONGEST, SHORTEST, SPATIAL, Reading, numbers

if TYPE_CHECKING:
    from .stored_array import StoredArray

# Voxel sizes along x, y and z, their unit, and the factor to it from the lengths that the file states.
_Scale = tuple[tuple[float, ...], str, float]


def stored_grid(
    stored: StoredArray, axes: str, reading: Reading, subject: str, notes: list[str]
) -> tuple[Grid, tuple[str, str, str]]:
    """Return the grid, and where the voxel size along x, y and z comes from."""
    shape = shape3(stored.shape[axes.find(letter)] if letter in axes else 1 for letter in SPATIAL)
    affine = _affine(stored, axes, subject)
    own = _lengths(stored, axes, affine)
    scale = _stated_scale if reading.spacing is None else _given_scale
    lengths, unit, factor = scale(stored, own, reading, subject, notes)
    if affine is None:
        affine = np.diag([*lengths, 1.0])
        affine[:3, 3] = np.multiply(stored.origin, factor)
    else:
        affine = affine.copy()
        affine[:3, 3] *= factor
        stretch = factor if reading.spacing is None else np.divide(lengths, _norms(affine))
        affine[:3, :3] *= stretch
    try:
        grid = Grid(shape, affine, unit)
    except ValueError:
        expected = "a finite place and voxel sizes of one order"
        raise InputError(subject, expected=expected, got=numbers(lengths), do="correct them") from None
    if reading.spacing is not None:
        return grid, ("given", "given", "given")
    x, y, z = (stored.sources.get(letter, "stated") for letter in SPATIAL)
    return grid, (x, y, z)


def _stated_scale(
    stored: StoredArray, own: Mapping[str, float], reading: Reading, subject: str, notes: list[str]
) -> _Scale:
    """Return the file's voxel sizes along x, y and z, their unit, and the factor to it from the file's lengths."""
    if stored.conflicts:
        do = "give `spacing` and `unit`"
        raise InputError(subject, expected="one voxel size", got=" and ".join(stored.conflicts), do=do)
    lacking = [letter for letter in SPATIAL if not SHORTEST <= own.get(letter, math.nan) <= LONGEST]
    if lacking:
        raise _no_spacing(stored, lacking, own, subject)
    unit, factor = (stored.unit, 1.0) if reading.unit is None else LENGTH_UNITS[reading.unit]
    if stored.unit != "unknown" and (unit, factor) != (stored.unit, 1.0):
        if factor != 1.0:  # the file may have said the same unit: lengths are converted when a file is read
            do = "give `spacing` in it too, or leave `unit` out"
            raise UsageError("unit", expected=f"mm or um for lengths in {stored.unit}", got=f"{reading.unit}", do=do)
        notes.append(f"{subject} states its lengths in {stored.unit}; {reading.unit} was given and is taken")
    return tuple(own[letter] * factor for letter in SPATIAL), unit, factor


def _given_scale(
    stored: StoredArray, own: Mapping[str, float], reading: Reading, subject: str, notes: list[str]
) -> _Scale:
    """Return the user's voxel sizes, their unit, and the factor to it from the file's lengths."""
    assert reading.spacing is not None
    unit, factor = (stored.unit, 1.0) if reading.unit is None else LENGTH_UNITS[reading.unit]
    if unit == "unknown":
        raise UsageError("spacing", expected="its unit beside it", got="none", do="give `unit`, e.g. um")
    lengths = tuple(edge * factor for edge in reading.spacing)
    if stored.unit != "unknown":
        factor = 1.0 if stored.unit == unit else 1e3 if unit == "um" else 1e-3
    stated = [own.get(letter, math.nan) for letter in SPATIAL]
    found = " and ".join(stored.conflicts)
    is_same = np.allclose(lengths, np.multiply(stated, factor), rtol=1e-6, atol=0)
    if not found and np.isfinite(stated).all() and not is_same:
        found = f"a spacing of {numbers(stated)} {stored.unit}"
    if found:
        notes.append(f"{subject} states {found}; {numbers(lengths)} {unit} is taken")
    return lengths, unit, factor


def _affine(stored: StoredArray, axes: str, subject: str) -> FloatArray | None:
    """Return the file's affine with its columns in the order that the axes have now."""
    if stored.affine is None:
        return None
    if not np.isfinite(stored.affine).all() or np.linalg.matrix_rank(stored.affine[:3, :3]) < 3:
        do = "write the file again with a valid affine"
        raise InputError(subject, expected="an affine with three directions", got="fewer", do=do)
    columns = []
    for letter in axes:
        if letter not in SPATIAL:
            continue
        was = stored.axes[axes.find(letter)]
        if was not in SPATIAL:
            got = f"{letter} for the axis that the file calls {was}"
            raise UsageError("axes", expected=f"directions that {subject} states", got=got, do="correct it")
        columns.append((letter, SPATIAL.find(was)))
    known = dict(columns)
    (rest,) = {0, 1, 2} - set(known.values()) or {2}  # for z, where the volume has no such axis
    order = [known.get(letter, rest) for letter in SPATIAL]
    affine = np.array(stored.affine, np.float64)
    affine[:, :3] = affine[:, order]
    return affine


def _lengths(stored: StoredArray, axes: str, affine: FloatArray | None) -> dict[str, float]:
    """Return the voxel sizes that the file states, by letter; none for an axis that it calls by another's name."""
    if affine is not None:
        called = {letter: stored.axes[axes.find(letter)] if letter in axes else letter for letter in SPATIAL}
        sized = [letter for letter in SPATIAL if not math.isnan(stored.spacing.get(called[letter], 0.0))]
        return {
            letter: float(length) for letter, length in zip(SPATIAL, _norms(affine), strict=True) if letter in sized
        }
    own = {letter: float(length) for letter, length in stored.spacing.items() if letter in SPATIAL}
    renamed = [
        now
        for was, now in zip(stored.axes, axes, strict=False)
        if was in SPATIAL and now in SPATIAL and own.get(was) != own.get(now)
    ]
    return {letter: length for letter, length in own.items() if letter not in renamed}


def _norms(affine: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def _no_spacing(stored: StoredArray, lacking: Sequence[str], own: Mapping[str, float], subject: str) -> InputError:
    named = [
        f"{letter.lower()} ({stored.sources[letter]})" if letter in stored.sources else letter.lower()
        for letter in lacking
    ]
    found = [f"{own[letter]:g} along {letter.lower()}" for letter in lacking if letter in own]
    if not found and not all(math.isnan(stored.spacing.get(letter, math.nan)) for letter in lacking):
        found = [f"sizes of axes that the file calls {stored.axes}"]
    do = "give `spacing` along x, y and z, and its `unit`, e.g. 0.5,0.5,2 and um"
    got = ", ".join(found) or "none"
    return InputError(subject, expected=f"a voxel size along {', '.join(named)}", got=got, do=do)
