"""Interpolation along one axis: nearest voxel, linear, and cubic B-spline; whole arrays and streams of planes.

Positions are multiples of 2**-22 of a voxel, and every sum has the same order for a volume and its mirror image. A
sampler therefore gives the same bits for an axis of an array and for a stream along that axis, and mirrors exactly.
Edge values extend beyond the outermost voxel centres.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Align = Literal["centre", "extent", "first"]
Order = Literal[0, 1, 3]

# 22 fractional bits: a fraction and its complement are both exact in float32.
_POSITION_STEPS = float(2**22)
# Pole of the cubic B-spline's recursive filter (Unser 1999, IEEE Signal Processing Magazine 16(6), box 2). The filter's
# impulse response is sqrt(3) * pole**|k|; beyond 13 voxels it is below single precision.
_POLE = 3.0**0.5 - 2.0
_REACH = 13
# Makes the truncated impulse response sum to 1.
_GAIN = np.float32(1 / (1 + 2 * sum(_POLE**k for k in range(1, _REACH + 1))))


class Sampler(Protocol):
    """Samples of an axis."""

    def first_source(self, begin: int) -> int:
        """Return the first source plane that contributes to target plane ``begin``."""

    def across(self, array: Plane, axis: int) -> Plane:
        """Return the samples of ``array`` along one of its axes."""

    def along(self, stream: Iterator[Plane], begin: int, first: int) -> Iterator[Plane]:
        """Yield the samples from ``begin`` on of a stream of planes that begins at source plane ``first``."""

    def part(self, start: int, stop: int) -> tuple[Sampler, range]:
        """Return the sampler of a range of the target alone, and the range of the source that it samples."""

    @property
    def held_planes(self) -> int:
        """Number of source planes that `along` holds."""


def sampler(source: int, target: int, ratio: float, *, order: Order = 1, align: Align = "centre") -> Sampler:
    """Return the sampler from ``source`` to ``target`` voxels; ``ratio`` is target spacing over source spacing."""
    if source == target and ratio == 1.0:
        return Kept()
    if order == 0:
        return Nearest(nearest(source, target, ratio, align))
    at = positions(source, target, ratio, align)
    return AxisSampling.at(at, source) if order == 1 else Cubic.at(at, source)


def positions(source: int, target: int, ratio: float, align: Align) -> NDArray[np.float64]:
    """Return the positions of the target voxels on the source axis, in source voxels.

    The axes share their centre, or the first voxel for ``align`` "first".
    """
    centred = align != "first"
    steps = ratio * (np.arange(target) - (target - 1) / 2 * centred)
    at: NDArray[np.float64] = np.rint(steps * _POSITION_STEPS) / _POSITION_STEPS + (source - 1) / 2 * centred
    return at


def nearest(source: int, target: int, ratio: float, align: Align) -> NDArray[np.intp]:
    """Return the source voxel nearest to each target voxel.

    Ties take the voxel that scipy's ``map_coordinates`` takes (the upper one), and for ``align`` "first" the one that
    PyTorch's ``grid_sample`` takes (the even one). They are the one case that does not mirror.
    """
    if align == "first":
        at = np.rint(ratio * np.arange(target))
    elif align == "extent":
        # The expression of nnU-Net and scipy, rounding included: a tie is one only if it is one for them.
        at = np.floor(ratio * (np.arange(target) + 0.5) - 0.5 + 0.5)
    else:
        at = np.floor(positions(source, target, ratio, align) + 0.5)
    index: NDArray[np.intp] = np.clip(at, 0, source - 1).astype(np.intp)
    return index


class Kept:
    """The axis as it is."""

    held_planes = 0

    def first_source(self, begin: int) -> int:  # noqa: D102
        return begin

    def across(self, array: Plane, axis: int) -> Plane:  # noqa: ARG002, D102
        return array

    def along(self, stream: Iterator[Plane], begin: int, first: int) -> Iterator[Plane]:  # noqa: D102
        return islice(stream, begin - first, None)

    def part(self, start: int, stop: int) -> tuple[Kept, range]:  # noqa: D102
        return self, range(start, stop)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest voxel: source index of each target voxel."""

    index: NDArray[np.intp]
    held_planes = 1

    def first_source(self, begin: int) -> int:  # noqa: D102
        return int(self.index[begin])

    def across(self, array: Plane, axis: int) -> Plane:  # noqa: D102
        return array.take(self.index, axis)

    def along(self, stream: Iterator[Plane], begin: int, first: int) -> Iterator[Plane]:  # noqa: D102
        source = _Ring(stream, first, int(self.index[-1]) + 1)
        for index in self.index[begin:]:
            source.forget(int(index))
            yield source[int(index)].copy()
        source.drain()

    def part(self, start: int, stop: int) -> tuple[Nearest, range]:  # noqa: D102
        index = self.index[start:stop]
        return Nearest(index - index[0]), range(int(index[0]), int(index[-1]) + 1)


@dataclass(frozen=True, eq=False)
class AxisSampling:
    """Linear interpolation: target samples lie between ``below`` and its neighbour, at a ``fraction``."""

    below: NDArray[np.intp]
    fraction: NDArray[np.float32]
    source: int
    held_planes = 2

    @classmethod
    def at(cls, at: NDArray[np.float64], source: int) -> AxisSampling:
        """Build the sampling at positions on an axis of ``source`` voxels."""
        at = np.clip(at, 0.0, source - 1.0)
        below = np.minimum(at.astype(np.intp), max(source - 2, 0))
        return cls(below, (at - below).astype(np.float32), source)

    def first_source(self, begin: int) -> int:  # noqa: D102
        return int(self.below[begin])

    def across(self, array: Plane, axis: int) -> Plane:  # noqa: D102
        above = np.minimum(self.below + 1, self.source - 1)
        return _between(array.take(self.below, axis), array.take(above, axis), _lying(self.fraction, axis, array.ndim))

    def along(self, stream: Iterator[Plane], begin: int, first: int) -> Iterator[Plane]:  # noqa: D102
        source = _Ring(stream, first, self.source)
        for below, part in zip(self.below[begin:], self.fraction[begin:], strict=True):
            source.forget(int(below))
            yield _between(source[int(below)], source[int(below) + 1], part)
        source.drain()

    def part(self, start: int, stop: int) -> tuple[AxisSampling, range]:  # noqa: D102
        below = self.below[start:stop]
        read = range(int(below[0]), min(int(below[-1]) + 2, self.source))
        return AxisSampling(below - read.start, self.fraction[start:stop], len(read)), read


def _between(below: Plane, above: Plane, part: NDArray[np.float32] | np.float32) -> Plane:
    value: Plane = below * (np.float32(1) - part) + above * part
    return value


@dataclass(frozen=True, eq=False)
class Cubic:
    """Cubic B-spline interpolation: a filter to coefficients, then four taps ``weights`` (T, 4) from ``low`` on."""

    low: NDArray[np.intp]
    weights: NDArray[np.float32]
    source: int
    held_planes = 2 * _REACH + 6

    @classmethod
    def at(cls, at: NDArray[np.float64], source: int) -> Cubic:
        """Build the sampling at positions on an axis of ``source`` voxels."""
        at = np.clip(at, -_REACH, source - 1.0 + _REACH)
        below = np.floor(at)
        part = at - below
        weights = np.stack([_outer(1 - part), _inner(part), _inner(1 - part), _outer(part)], axis=1)
        return cls(below.astype(np.intp) - 1, weights.astype(np.float32), source)

    def first_source(self, begin: int) -> int:  # noqa: D102
        return min(max(int(self.low[begin]) - _REACH, 0), self.source - 1)

    def across(self, array: Plane, axis: int) -> Plane:  # noqa: D102
        spline = self._spline(array, axis)
        taps = (spline.take(self.low - self.low[0] + tap, axis) for tap in range(4))
        return _sum_of_four(taps, [_lying(self.weights[:, tap], axis, array.ndim) for tap in range(4)])

    def _spline(self, array: Plane, axis: int) -> Plane:
        """Return the coefficients from the first to the last tap."""
        length = int(self.low[-1] - self.low[0]) + 4
        index = np.arange(2 * _REACH + length) + self.low[0] - _REACH
        extended = array.take(np.clip(index, 0, self.source - 1), axis)
        lead = (slice(None),) * axis
        return _coefficients([extended[(*lead, slice(k, k + length))] for k in range(2 * _REACH + 1)])

    def along(self, stream: Iterator[Plane], begin: int, first: int) -> Iterator[Plane]:  # noqa: D102
        source = _Ring(stream, first, self.source)
        spline: deque[Plane] = deque(maxlen=4)
        reached = int(self.low[begin])
        for low, weights in zip(self.low[begin:].tolist(), self.weights[begin:], strict=True):
            reached = max(reached, low)
            for at in range(reached, low + 4):
                source.forget(at - _REACH)
                spline.append(_coefficients([source[at + k] for k in range(-_REACH, _REACH + 1)]))
            reached = low + 4
            yield _sum_of_four(spline, weights)
        source.drain()

    def part(self, start: int, stop: int) -> tuple[Cubic, range]:  # noqa: D102
        low = self.low[start:stop]
        first = min(max(int(low[0]) - _REACH, 0), self.source - 1)
        read = range(first, max(first + 1, min(int(low[-1]) + 4 + _REACH, self.source)))
        return Cubic(low - first, self.weights[start:stop], len(read)), read


def _outer(part: NDArray[np.float64]) -> NDArray[np.float64]:
    return part**3 / 6


def _inner(part: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 / 3 - part**2 * (2 - part) / 2


def _coefficients(values: Sequence[Plane]) -> Plane:
    """Return the spline's coefficient in the middle of 27 values, by Horner's rule from both ends."""
    pole = np.float32(_POLE)
    total = np.zeros_like(values[0])
    for distance in range(_REACH, 0, -1):
        total += values[_REACH - distance] + values[_REACH + distance]
        total *= pole
    total += values[_REACH]
    total *= _GAIN
    return total


def _sum_of_four(taps: Iterable[Plane], weights: Iterable[NDArray[np.float32] | np.float32]) -> Plane:
    """Return the weighted sum of four taps.

    Taps 0 and 2, and 1 and 3, are summed first. The mirror image then has the same sums, also where the last weight is
    0 and the mirrored taps are the first three in reverse.
    """
    a, b, c, d = (tap * weight for tap, weight in zip(taps, weights, strict=True))
    a += c
    b += d
    a += b
    return a


def _lying(values: NDArray[np.float32], axis: int, dimensions: int) -> NDArray[np.float32]:
    return values.reshape([-1 if a == axis else 1 for a in range(dimensions)])


class _Ring:
    """The latest planes of a stream that begins at plane ``first``, by index; edge planes extend beyond both ends."""

    def __init__(self, stream: Iterator[Plane], first: int, length: int) -> None:
        self._stream, self._next, self._length = stream, first, length
        self._planes: deque[Plane] = deque()

    def __getitem__(self, index: int) -> Plane:
        index = min(max(index, 0), self._length - 1)
        while self._next <= index:
            self._planes.append(next(self._stream))
            self._next += 1
        return self._planes[index - self._next]

    def forget(self, before: int) -> None:
        """Drop the planes before an index, which may not have been read yet."""
        before = min(before, self._length - 1)
        while self._next < before:
            next(self._stream)
            self._planes.clear()
            self._next += 1
        while self._planes and self._next - len(self._planes) < before:
            self._planes.popleft()

    def drain(self) -> None:
        """Read the stream to its end."""
        self._planes.clear()
        for _ in self._stream:
            pass
