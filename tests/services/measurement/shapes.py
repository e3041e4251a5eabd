"""Tubes of known size on grids of any spacing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def places(shape: Sequence[int], spacing: Sequence[float]) -> Floats:
    """The place of each voxel, ``(x, y, z, 3)``."""
    found: Floats = np.moveaxis(np.indices(shape), 0, -1) * np.asarray(spacing)
    return found


def rod(at: Floats, start: ArrayLike, end: ArrayLike, radius: float, *, round_ends: bool) -> NDArray[np.bool_]:
    """A straight tube from one place to another; round ends go beyond."""
    first, last = np.asarray(start, float), np.asarray(end, float)
    long = float(np.linalg.norm(last - first))
    axis = (last - first) / long
    along = (at - first) @ axis
    nearest = np.clip(along, 0, long) if round_ends else along
    within: NDArray[np.bool_] = np.linalg.norm(at - first - nearest[..., np.newaxis] * axis, axis=-1) <= radius
    return within if round_ends else within & (along >= 0) & (along <= long)


def torus(at: Floats, centre: Sequence[float], axis: Sequence[float], large: float, small: float) -> NDArray[np.bool_]:
    """A ring around an axis."""
    from_centre, unit = at - np.asarray(centre), np.asarray(axis) / np.linalg.norm(axis)
    height = from_centre @ unit
    away = np.sqrt(np.maximum((from_centre**2).sum(-1) - height**2, 0))
    within: NDArray[np.bool_] = np.hypot(away - large, height) <= small
    return within


def chain(at: Floats, line: Floats, radius: float) -> NDArray[np.bool_]:
    """A tube with round ends around a line of places ``(n, 3)``."""
    found = np.zeros(at.shape[:3], bool)
    for start, end in itertools.pairwise(line):
        found |= rod(at, start, end, radius, round_ends=True)
    return found
