"""Merging: scores of overlapping tiles, row by row, become finished blocks.

In blending, scores are summed as 64-bit integers (multiples of 2**-36): integer addition is associative, so a voxel's
sum is the same to the last bit whatever the visiting axis, the batch or the slab. In halo blending each voxel comes
from the one tile whose core it lies in, and nothing is summed at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, shape3
from .buffers import Buffer, Buffers, buffer_in
from .patches import TilePlan

Logits = NDArray[np.float32]

_FIXED_POINT = float(2**36)
# |logit| up to 2**18, summed weights up to 7**3 (a tile of 7 at overlap 0.75 moves by 1) and 36 fractional bits: 62.4
# of 63.
LARGEST_LOGIT = float(2**18)
# What is worked on at a time: a few arrays of so many values fit the cache.
_ADDED_AT_ONCE = 2**15
_FINISHED_AT_ONCE = 2**18


@dataclass(frozen=True, eq=False)
class Block:
    """Finished scores ``(K, x, y, z)`` of the voxels in ``box`` of the volume."""

    box: Box
    logits: Logits


class BlendMerger:
    """Sums weighted scores of overlapping tiles on a shelf, and hands on strips of planes that no later row touches.

    The shelf is ``(B, A, K, T)``: what a tile adds to lies close together there. T is as many planes as a tile is
    thick; a plane that is finished leaves its place to one that follows.
    """

    def __init__(self, plan: TilePlan, begin: int, buffers: Buffers | None) -> None:
        self._plan, self._begin, self._buffers = plan, begin, buffers
        first, second = plan.across
        self._across = np.multiply.outer(plan.weights(second), plan.weights(first)) * _FIXED_POINT
        self._along = plan.weights(plan.axis)
        self._norm_across = plan.summed_weights(first), plan.summed_weights(second)
        self._norm_along = plan.summed_weights(plan.axis)
        self._classes = 0
        self._sums: Buffer | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, row: int, corner: tuple[int, int], logits: Logits) -> Iterator[Block]:
        """Add a tile's scores to the sums; nothing is finished by that."""
        plan, sums = self._plan, self._buffer(logits.shape[0])
        first, second = plan.across
        a, b = plan.starts[first][corner[0]], plan.starts[second][corner[1]]
        turned = logits.transpose(1 + second, 1 + first, 0, 1 + plan.axis)
        rows, width, classes, thick = turned.shape
        begin = plan.starts[plan.axis][row]
        ring, along = list(_on_ring(range(begin, begin + thick), thick)), np.roll(self._along, begin)
        at_once = min(rows, max(1, _ADDED_AT_ONCE // (width * classes * thick)))
        # into the same memory for every piece: fresh arrays of this size cost more than the arithmetic
        shape = (at_once, width, classes, thick)
        values, exact, fixed = np.empty(shape, np.float32), np.empty(shape), np.empty(shape, np.int64)
        for low in range(0, rows, at_once):
            high = min(low + at_once, rows)
            part = slice(0, high - low)
            for planes, places in ring:
                values[part, ..., places] = turned[low:high, ..., planes]
            weights = self._across[low:high, :, np.newaxis, np.newaxis] * along
            np.multiply(values[part], weights, out=exact[part])
            np.rint(exact[part], out=exact[part])
            np.copyto(fixed[part], exact[part], casting="unsafe")
            place = slice(b + low, b + high), slice(a, a + width)
            summed = sums.read(*place)
            summed += fixed[part]
            sums.write(*place, summed)
        return iter(())

    def finish(self, row: int) -> Iterator[Block]:
        """Hand on the planes that no later row touches, in strips, and make place for others."""
        plan = self._plan
        first, second = plan.across
        starts, pad = plan.starts[plan.axis], plan.pad_before[plan.axis]
        following = starts[row + 1] if row + 1 < len(starts) else plan.padded[plan.axis]
        done = range(starts[row], following)
        wanted = range(max(done.start, self._begin + pad), min(done.stop, pad + plan.shape[plan.axis]))
        classes, thick = self._classes, plan.tile[plan.axis]
        at_once = max(1, _FINISHED_AT_ONCE // (plan.padded[first] * classes * thick))
        for low in range(0, plan.padded[second], at_once):
            place = slice(low, min(low + at_once, plan.padded[second])), slice(0, plan.padded[first])
            sums = self._buffer(classes).read(*place)
            block = self._block(place[0], wanted, sums) if wanted else None
            if following < plan.padded[plan.axis]:
                for _, places in _on_ring(done, thick):
                    sums[..., places] = 0
                self._buffer(classes).write(*place, sums)
            if block is not None:
                yield block

    def _block(self, strip: slice, planes: range, sums: NDArray[np.int64]) -> Block | None:
        """The scores of a strip ``(b, A, K, T)``; None where all of it is padding."""
        plan = self._plan
        first, second = plan.across
        pad_first, pad_second = plan.pad_before[first], plan.pad_before[second]
        low = max(strip.start, pad_second)
        high = min(strip.stop, pad_second + plan.shape[second])
        if low >= high:
            return None
        width = slice(pad_first, pad_first + plan.shape[first])
        kept = sums[low - strip.start : high - strip.start, width]
        norm = np.multiply.outer(self._norm_across[1][low:high], self._norm_across[0][width]) * _FIXED_POINT
        rows, columns, classes, thick = kept.shape
        logits = np.empty((classes, len(planes), rows, columns), np.float32)
        at_once = max(1, _ADDED_AT_ONCE // (rows * classes * thick))
        for number, places in _on_ring(planes, thick):
            along = self._norm_along[planes.start + number.start : planes.start + number.stop]
            for start in range(0, columns, at_once):
                piece = slice(start, start + at_once)
                mean = kept[:, piece, :, places] / (norm[:, piece, np.newaxis, np.newaxis] * along)
                logits[:, number, :, piece] = mean.transpose(2, 3, 0, 1)
        pad = plan.pad_before[plan.axis]
        box = Box.whole(plan.shape).with_range(plan.axis, planes.start - pad, planes.stop - pad)
        box = box.with_range(second, low - pad_second, high - pad_second)
        order = {plan.axis: 1, second: 2, first: 3}
        return Block(box, logits.transpose(0, *(order[axis] for axis in range(3))))

    def _buffer(self, classes: int) -> Buffer:
        if self._sums is None:
            plan = self._plan
            first, second = plan.across
            shape = (plan.padded[second], plan.padded[first], classes, plan.tile[plan.axis])
            self._classes = classes
            self._sums = self._stack.enter_context(buffer_in(self._buffers, shape, np.int64))
        return self._sums


def _on_ring(planes: range, thick: int) -> Iterator[tuple[slice, slice]]:
    """Planes, counted from the first of them, and their places among ``thick``, in one piece or two."""
    begin = planes.start % thick
    until = min(len(planes), thick - begin)
    yield slice(0, until), slice(begin, begin + until)
    if until < len(planes):
        yield slice(until, len(planes)), slice(0, len(planes) - until)


class HaloMerger:
    """Keeps the core of each tile and drops its halo."""

    def __init__(self, plan: TilePlan, begin: int) -> None:
        self._plan = plan
        self._least = [plan.pad_before[axis] + (begin if axis == plan.axis else 0) for axis in range(3)]
        self._cores = tuple(plan.cores(axis) for axis in range(3))

    def add(self, row: int, corner: tuple[int, int], logits: Logits) -> Iterator[Block]:
        """Hand on the core of a tile."""
        plan = self._plan
        at = {plan.axis: row, plan.across[0]: corner[0], plan.across[1]: corner[1]}
        start, stop, cut = [], [], []
        for axis in range(3):
            low, high = self._cores[axis][at[axis]]
            low = max(low, self._least[axis])
            high = min(high, plan.pad_before[axis] + plan.shape[axis])
            tile_start = plan.starts[axis][at[axis]]
            start.append(low - plan.pad_before[axis])
            stop.append(high - plan.pad_before[axis])
            cut.append(slice(low - tile_start, high - tile_start))
        yield Block(Box(shape3(start), shape3(stop)), logits[(slice(None), *cut)])

    def finish(self, row: int) -> Iterator[Block]:  # noqa: ARG002 - every block was handed on by add
        """Hand on nothing: add did."""
        return iter(())


def merging_bytes(plan: TilePlan, classes: int, held: Callable[[int, int], int]) -> int:
    """Bytes that a BlendMerger holds; ``held`` says how many of an array's, of which pieces of a size are read."""
    first, second = plan.across
    thick = plan.tile[plan.axis]
    line = plan.padded[first] * classes * thick
    slab = line * plan.padded[second]
    # a strip of sums and its scores, or what one tile adds in pieces, each in a few types
    strip = min(slab, max(line, _FINISHED_AT_ONCE))
    return held(slab * 8, strip * 8) + strip * 12
