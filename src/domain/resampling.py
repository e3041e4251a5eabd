"""Linear resampling of a stream of planes between two grids that share their axes and their field of view.

Planes are interpolated in-plane by ``scipy.ndimage`` and then between neighbours, one output plane at a time, so the
result does not depend on how the stream was cut and only two planes are held. Beyond the outermost voxel centres
the edge value is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .geometry import Shape3

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class AxisSampling:
    """Where the ``count`` samples of a target axis lie on a source axis: at ``offset + ratio * index``."""

    count: int
    ratio: float
    offset: float

    @classmethod
    def between(cls, source_length: int, target_length: int, ratio: float) -> AxisSampling:
        """The sampling of two centred axes; ``ratio`` is target spacing over source spacing."""
        return cls(target_length, ratio, (source_length - 1) / 2 - ratio * (target_length - 1) / 2)

    def positions(self, source_length: int) -> NDArray[np.float64]:
        """Source coordinates of all samples, limited to the source's voxel centres."""
        at = self.offset + self.ratio * np.arange(self.count)
        return np.clip(at, 0.0, source_length - 1.0)


@dataclass(frozen=True)
class Resampling:
    """A linear resampling from one shape to another, given the spacing ratio (target over source) of each axis."""

    source: Shape3
    target: Shape3
    ratio: tuple[float, float, float]

    def inverse(self) -> Resampling:
        """The resampling back."""
        x, y, z = self.ratio
        return Resampling(self.target, self.source, (1 / x, 1 / y, 1 / z))

    def planes(self, planes: Iterable[Plane], axis: int) -> Iterator[Plane]:
        """Planes ``(C, A, B)`` of the target, from those of the source in order along ``axis``."""
        if self.source == self.target and self.ratio == (1.0, 1.0, 1.0):
            yield from planes
            return
        positions = self._sampling(axis).positions(self.source[axis])
        stream = (self._in_plane(plane, axis) for plane in planes)
        below = above = next(stream)
        reached = 0
        for position in positions:
            floor = int(position)
            while reached < min(floor + 1, self.source[axis] - 1):
                below, above = above, next(stream)
                reached += 1
            part = np.float32(position - floor)
            if floor == reached:
                yield above.copy()
            else:
                yield below * (np.float32(1) - part) + above * part
        for _ in stream:  # a target that ends before the source still drains it
            pass

    def _sampling(self, axis: int) -> AxisSampling:
        return AxisSampling.between(self.source[axis], self.target[axis], self.ratio[axis])

    def _in_plane(self, plane: Plane, axis: int) -> Plane:
        first, second = (a for a in range(3) if a != axis)
        if all(self.source[a] == self.target[a] and self.ratio[a] == 1.0 for a in (first, second)):
            return plane
        a, b = self._sampling(first), self._sampling(second)
        result = np.empty((plane.shape[0], a.count, b.count), np.float32)
        for channel, out in zip(plane, result, strict=True):
            ndimage.affine_transform(
                channel,
                np.array([a.ratio, b.ratio]),
                offset=(a.offset, b.offset),
                output=out,
                output_shape=(a.count, b.count),
                order=1,
                mode="nearest",
            )
        return result
