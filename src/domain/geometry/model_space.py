"""The transformation from a stored grid to the model's grid: reorient, then resample a stream of planes linearly.

Axes are interpolated in the order x, y, z for any streaming axis, at positions that are multiples of 2**-22 of a voxel.
The result is therefore bit-identical for any axis, and mirrors exactly with the volume. Edge values extend beyond the
outermost voxel centres. Two planes are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..cards.model_card import Input
from .grid import Grid, Reorientation, Shape3, unit_factor

Plane = NDArray[np.float32]
# 22 fractional bits: a fraction and its complement are both exact in float32.
_POSITION_STEPS = float(2**22)
# Spacings this close count as equal: float32 headers differ from what they mean by 1e-7.
_SAME_SPACING = 1e-5


@dataclass(frozen=True)
class AxisSampling:
    """Positions of target samples on a source axis: between ``below`` and its neighbour, at the fraction ``part``."""

    below: NDArray[np.intp]
    part: NDArray[np.float32]

    @classmethod
    def between(cls, source_length: int, target_length: int, ratio: float) -> AxisSampling:
        """Build the sampling of two axes with one centre; ``ratio`` is target spacing over source spacing."""
        from_centre = ratio * (np.arange(target_length) - (target_length - 1) / 2)
        at = np.rint(from_centre * _POSITION_STEPS) / _POSITION_STEPS + (source_length - 1) / 2
        at = np.clip(at, 0.0, source_length - 1.0)
        below = np.minimum(at.astype(np.intp), max(source_length - 2, 0))
        return cls(below, (at - below).astype(np.float32))

    def apply(self, array: Plane, axis: int) -> Plane:
        """Return the samples of ``array`` along one of its axes."""
        part = self.part.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
        above = np.minimum(self.below + 1, array.shape[axis] - 1)
        return between(array.take(self.below, axis), array.take(above, axis), part)


def between(below: Plane, above: Plane, part: NDArray[np.float32] | np.float32) -> Plane:
    """Interpolate: ``below`` for ``part`` 0, ``above`` for 1."""
    value: Plane = below * (np.float32(1) - part) + above * part
    return value


@dataclass(frozen=True)
class Resampling:
    """Linear resampling from one shape to another, with the spacing ratio (target over source) of each axis."""

    source: Shape3
    target: Shape3
    ratio: tuple[float, float, float]

    def inverse(self) -> Resampling:
        """Return the inverse resampling."""
        x, y, z = self.ratio
        return Resampling(self.target, self.source, (1 / x, 1 / y, 1 / z))

    def first_source(self, axis: int, begin: int) -> int:
        """Return the first source plane along ``axis`` that contributes to target plane ``begin``."""
        return begin if self._keeps(axis) else int(self._sampling(axis).below[begin])

    def planes(self, planes: Iterable[Plane], axis: int, *, begin: int = 0, first: int = 0) -> Iterator[Plane]:
        """Yield planes ``(C, A, B)`` of the target from ``begin`` on, from source planes in order along ``axis``.

        The source begins at plane ``first``, at most ``first_source(axis, begin)``.
        """
        before, after = range(axis), range(axis + 1, 3)
        sampled = self._along((self._across(plane, axis, before) for plane in planes), axis, begin, first)
        return (self._across(plane, axis, after) for plane in sampled)

    def _along(self, stream: Iterator[Plane], axis: int, begin: int, first: int) -> Iterator[Plane]:
        if self._keeps(axis):
            yield from islice(stream, begin - first, None)
            return
        sampling = self._sampling(axis)
        below = above = next(stream)
        reached = first
        for floor, part in zip(sampling.below[begin:], sampling.part[begin:], strict=True):
            while reached < min(floor + 1, self.source[axis] - 1):
                below, above = above, next(stream)
                reached += 1
            yield between(below, above, part)
        for _ in stream:  # read the remaining source planes
            pass

    def _across(self, plane: Plane, streamed: int, axes: Iterable[int]) -> Plane:
        for axis in axes:
            if not self._keeps(axis):
                # planes are (C, A, B), with A < B the other two axes
                plane = self._sampling(axis).apply(plane, 1 + axis - (axis > streamed))
        return plane

    def _keeps(self, axis: int) -> bool:
        return self.source[axis] == self.target[axis] and self.ratio[axis] == 1.0

    def _sampling(self, axis: int) -> AxisSampling:
        return AxisSampling.between(self.source[axis], self.target[axis], self.ratio[axis])


@dataclass(frozen=True)
class ModelSpace:
    """The reoriented grid and the model's grid of a stored grid, with the transformations between them."""

    stored: Grid
    reorientation: Reorientation
    oriented: Grid
    resampling: Resampling
    grid: Grid

    @classmethod
    def of(cls, stored: Grid, wanted: Input) -> ModelSpace:
        """Build the space for a card's input."""
        identity = Reorientation.identity()
        change = identity if wanted.orientation is None else stored.reorientation_to(wanted.orientation)
        grid = oriented = change.apply_grid(stored)
        ratio = (1.0, 1.0, 1.0)
        if wanted.spacing is not None and wanted.spacing_unit is not None:
            factor = unit_factor(wanted.spacing_unit, stored.unit)
            target = [length * factor for length in wanted.spacing]
            x, y, z = (t / s for t, s in zip(target, oriented.spacing, strict=True))
            if not all(abs(r - 1) <= _SAME_SPACING for r in (x, y, z)):
                grid, ratio = oriented.resampled(target), (x, y, z)
        return cls(stored, change, oriented, Resampling(oriented.shape, grid.shape, ratio), grid)

    @property
    def resamples(self) -> bool:
        """Whether anything is interpolated."""
        return self.resampling.ratio != (1.0, 1.0, 1.0)

    def model_axis(self, stored_axis: int) -> int:
        """Return the model axis parallel to a stored axis."""
        return self.reorientation.axes.index(stored_axis)
