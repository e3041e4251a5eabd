"""A volume: channel-first voxel values on a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry.grid import Grid
from .labels.label_map import LabelTable


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxel values ``(C, X, Y, Z)`` on a grid. The array is copied in and read-only; volumes compare by value.

    ``channel_names`` has one name a channel, or none; ``labels`` is the table of a label map.
    """

    array: NDArray[Any]
    grid: Grid
    channel_names: tuple[str, ...] = ()
    labels: LabelTable | None = None

    def __post_init__(self) -> None:
        array = np.array(self.array)
        if array.ndim == 3:
            array = array[np.newaxis]
        if array.ndim != 4 or array.shape[1:] != self.grid.shape:
            raise ValueError(f"array: expected (C, {self.grid.shape}), got {array.shape}")
        if len(self.channel_names) not in (0, len(array)):
            raise ValueError(f"channel_names: expected {len(array)} or none, got {len(self.channel_names)}")
        array.flags.writeable = False
        object.__setattr__(self, "array", array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Volume):
            return NotImplemented
        described = (self.grid, self.channel_names, self.labels)
        return described == (other.grid, other.channel_names, other.labels) and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.grid, self.array.shape))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    def reoriented(self, codes: str) -> Volume:
        """Return the volume with its axes in the order and direction of ``codes``, without interpolation."""
        change = self.grid.reorientation_to(codes)
        return replace(self, array=change.apply(self.array), grid=change.apply_grid(self.grid))
