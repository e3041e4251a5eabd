"""Strokes of a brush on a label map: balls of a physical radius around voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..geometry.grid import Box, Grid, Shape3, shape3
from .label_map import LabelTable

MOST_POINTS = 512
_LARGEST_RADIUS = 1e9
_MOST_VOXELS = 2**24  # of the box that holds a stroke
_MOST_STEPS = 2**30  # voxels of a ball, times points
_SLACK = 1e-9  # a voxel whose distance is the radius is inside, however its spacing is rounded


@dataclass(frozen=True)
class Stroke:
    """Voxels that get one value.

    Args:
        value: of a label; 0 erases.
        radius: in the unit of the grid; 0 paints the points alone.
        points: voxels that the brush passes.
    """

    value: int
    radius: float
    points: tuple[Shape3, ...]

    def voxels(self, grid: Grid, table: LabelTable) -> tuple[Box, NDArray[np.bool_]]:
        """Return the smallest box that holds the stroke, and which of its voxels ``(x, y, z)`` are painted.

        Painted are the voxels whose centres are at most ``radius`` from the centre of a point, in world coordinates.

        Raises:
            UsageError: a value that is no label's, a point beyond the grid, or more than may be painted at once.
        """
        self._check(grid, table)
        reach = self._reach(grid)
        points = np.array(self.points)
        start, stop = points.min(axis=0) - reach, points.max(axis=0) + reach + 1
        box = Box(shape3(start.clip(0)), shape3(np.minimum(stop, grid.shape)))
        sides = [2 * int(n) + 1 for n in reach]
        if math.prod(box.shape) > _MOST_VOXELS or math.prod(sides) * len(points) > _MOST_STEPS:
            got = f"radius {self.radius:g}, a box of {' x '.join(map(str, box.shape))} voxels"
            raise UsageError("stroke", expected=f"one of at most {_MOST_VOXELS} voxels", got=got, do="paint with less")
        steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1)
        squares = ((steps @ grid.affine[:3, :3].T) ** 2).sum(axis=-1)
        ball = squares <= self.radius**2 * (1 + _SLACK)
        painted = np.zeros(box.shape, np.bool_)
        for point in points:
            place = Box(shape3(point - reach), shape3(point + reach + 1))
            inside = place.common(box)
            if inside is not None:
                painted[inside.within(box).slices] |= ball[inside.within(place).slices]
        return box, painted

    def _check(self, grid: Grid, table: LabelTable) -> None:
        if self.value != 0 and self.value not in table.values:
            known = ", ".join(map(str, (0, *table.values)))
            raise UsageError("stroke", expected=f"a value of {known}", got=str(self.value), do="choose another label")
        if not 0 <= self.radius <= _LARGEST_RADIUS:
            expected = f"a radius of 0 to {_LARGEST_RADIUS:g}"
            raise UsageError("stroke", expected=expected, got=str(self.radius), do="set another")
        if not 0 < len(self.points) <= MOST_POINTS:
            expected, got = f"1 to {MOST_POINTS} points", str(len(self.points))
            raise UsageError("stroke", expected=expected, got=got, do="send the stroke in parts")
        for point in self.points:
            if not all(0 <= v < n for v, n in zip(point, grid.shape, strict=True)):
                expected, got = f"points within {grid.shape}", str(point)
                raise UsageError("stroke", expected=expected, got=got, do="paint inside the volume")

    def _reach(self, grid: Grid) -> NDArray[np.int64]:
        """Return how many voxels the brush reaches along each axis, at most those of the grid."""
        columns = grid.affine[:3, :3]
        longest = self.radius * np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)))
        whole = np.minimum(np.floor(longest * (1 + _SLACK)), grid.shape)
        return np.asarray(whole, dtype=np.int64)
