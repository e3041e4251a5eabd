"""Resampling of a stream of planes to another voxel grid with parallel axes.

Axes are interpolated in the order x, y, z for any streaming axis, so the result is bit-identical for any axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .grid import Box, Shape3, shape3
from .interpolation import Align, Order, Plane, Sampler, sampler

# Planes that an interpolation within a plane holds besides its argument.
_TEMPORARY_PLANES = 8


@dataclass(frozen=True, eq=False)
class Limits:
    """Least and greatest values ``(C, x, y, z)`` of a volume, each edge 1; those of each slice of a separate axis.

    nnU-Net resamples the slices of a separate axis one by one, and clips each to its own values.
    """

    low: Plane
    high: Plane


@dataclass(frozen=True)
class Resampling:
    """Resampling from one shape to another, with the spacing ratio (target over source) of each axis.

    Args:
        order: interpolation: 0 nearest voxel, 1 linear, 3 cubic B-spline.
        separate: the axis that takes the nearest voxel for any ``order``.
        align: which points of both volumes coincide: "centre", "extent" (the ratio is that of the shapes) or "first"
            (the first voxels).
    """

    source: Shape3
    target: Shape3
    ratio: tuple[float, float, float]
    order: Order = 1
    separate: int | None = None
    align: Align = "centre"

    def inverse(self) -> Resampling:
        """Return the inverse resampling."""
        ratio = (s / t for s, t in zip(self.target, self.source, strict=True))
        if self.align != "extent":
            ratio = (1 / r for r in self.ratio)
        x, y, z = ratio
        return replace(self, source=self.target, target=self.source, ratio=(x, y, z))

    @property
    def clips(self) -> bool:
        """Whether values beyond the source's range are clipped: cubic splines overshoot. MONAI does not clip."""
        changed = (axis for axis in range(3) if axis != self.separate and not self.keeps(axis))
        return self.order == 3 and self.align != "first" and any(True for _ in changed)

    def limits(self, planes: Iterable[Plane], axis: int) -> Limits:
        """Return the limits to clip to from all source planes ``(C, A, B)`` in order along ``axis``."""
        across = tuple(_position(number, axis) for number in range(3) if number not in (axis, self.separate))
        ends = [(plane.min(across, keepdims=True), plane.max(across, keepdims=True)) for plane in planes]
        low, high = (np.stack(values, 1 + axis) for values in zip(*ends, strict=True))
        if axis != self.separate:
            low, high = low.min(1 + axis, keepdims=True), high.max(1 + axis, keepdims=True)
        return Limits(low, high)

    def first_source(self, axis: int, begin: int) -> int:
        """Return the first source plane along ``axis`` that contributes to target plane ``begin``."""
        return self._sampler(axis).first_source(begin)

    def source_box(self, target: Box) -> Box:
        """Return the source voxels that the voxels in a box of the target are sampled from."""
        ends = zip(target.start, target.stop, strict=True)
        read = [self._sampler(axis).part(start, stop)[1] for axis, (start, stop) in enumerate(ends)]
        return Box(shape3(part.start for part in read), shape3(part.stop for part in read))

    def planes(
        self,
        planes: Iterable[Plane],
        axis: int,
        *,
        begin: int = 0,
        first: int = 0,
        limits: Limits | None = None,
        within: Box | None = None,
    ) -> Iterator[Plane]:
        """Yield planes ``(C, A, B)`` of the target from ``begin`` on, from source planes in order along ``axis``.

        The source begins at plane ``first``, at most ``first_source(axis, begin)``. With a box of the target
        (``within``), the source planes are those of its ``source_box``, and the target's are those of the box.
        """
        samplers = [self._sampler(number) for number in range(3)]
        if within is not None:
            ends = zip(samplers, within.start, within.stop, strict=True)
            samplers = [whole.part(start, stop)[0] for whole, start, stop in ends]

        def across(plane: Plane, axes: Iterable[int]) -> Plane:
            for number in axes:
                plane = samplers[number].across(plane, _position(number, axis))
            return plane

        before, after = range(axis), range(axis + 1, 3)
        sampled = samplers[axis].along((across(plane, before) for plane in planes), begin, first)
        resampled = (across(plane, after) for plane in sampled)
        return resampled if limits is None else self._clipped(resampled, axis, begin, limits, within)

    def held_bytes(self, axis: int, channels: int) -> int:
        """Return the peak memory of `planes` along ``axis`` in bytes, without the planes that it yields."""
        before, largest = 1, 1
        for number in range(3):
            if number != axis:
                before *= self.target[number] if number < axis else self.source[number]
                largest *= max(self.source[number], self.target[number])
        return 4 * channels * (self._sampler(axis).held_planes * before + _TEMPORARY_PLANES * largest)

    def _clipped(
        self, planes: Iterator[Plane], axis: int, begin: int, limits: Limits, within: Box | None
    ) -> Iterator[Plane]:
        low, high = limits.low, limits.high
        if self.separate is not None:
            slices = self._sampler(self.separate)
            low, high = slices.across(low, 1 + self.separate), slices.across(high, 1 + self.separate)
            if within is not None:
                chosen = range(within.start[self.separate], within.stop[self.separate])
                low, high = low.take(chosen, 1 + self.separate), high.take(chosen, 1 + self.separate)
        for number, plane in enumerate(planes, begin):
            at = number if axis == self.separate else 0
            yield np.clip(plane, low.take(at, 1 + axis), high.take(at, 1 + axis), out=plane)

    def keeps(self, axis: int) -> bool:
        """Return whether an axis stays as it is."""
        return self.source[axis] == self.target[axis] and self.ratio[axis] == 1.0

    def _sampler(self, axis: int) -> Sampler:
        order = 0 if axis == self.separate else self.order
        return sampler(self.source[axis], self.target[axis], self.ratio[axis], order=order, align=self.align)


def _position(axis: int, streamed: int) -> int:
    """Return the position of an axis in a plane ``(C, A, B)``, where A and B are the other two axes in order."""
    return 1 + axis - (axis > streamed)
