"""Voxels in a memory map: x runs fastest, channels slowest."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.geometry.grid import Box, Shape3


def box_view(
    mapped: mmap.mmap, dtype: np.dtype[Any], shape: Shape3, channels: int, offset: int, box: Box
) -> NDArray[Any]:
    """A view ``(C, x, y, z)`` of the voxels in ``box``. ValueError if the box does not lie within ``shape``."""
    limits = zip(box.start, box.stop, shape, strict=True)
    if not all(0 <= start <= stop <= edge for start, stop, edge in limits):
        raise ValueError(f"box: expected one within {shape}, got {box.start} to {box.stop}")
    stored = np.ndarray((*shape, channels), dtype, buffer=mapped, offset=offset, order="F")
    return np.moveaxis(stored, 3, 0)[(slice(None), *box.slices)]


def release(mapped: mmap.mmap) -> None:
    """Drop the map's pages from resident memory; the data stays in the file, and comes back when touched."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
