"""A volume: channel-first voxel values on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry.grid import Grid


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxel values ``(C, X, Y, Z)`` on a grid; the array is copied in and read-only. Compared by value."""

    array: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        array = np.array(self.array)
        if array.ndim == 3:
            array = array[np.newaxis]
        if array.ndim != 4 or array.shape[1:] != self.grid.shape:
            raise ValueError(f"array: expected (C, {self.grid.shape}), got {array.shape}")
        array.flags.writeable = False
        object.__setattr__(self, "array", array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Volume):
            return NotImplemented
        return self.grid == other.grid and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.grid, self.array.shape))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    def reoriented(self, codes: str) -> Volume:
        """The same volume with its axes in the order and direction of ``codes``; nothing is interpolated."""
        change = self.grid.reorientation_to(codes)
        return Volume(change.apply(self.array), change.apply_grid(self.grid))
