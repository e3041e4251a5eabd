"""Blending: merge the logits of overlapping tiles, row by row, into finished blocks.

Weighted logits are summed as 64-bit integers (multiples of 2**-36). Integer addition is associative, so the sum is
bit-identical for any visiting axis, batch or slab. Halo blending takes each voxel from one tile and sums nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, shape3
from .buffers import Buffer, Buffers, buffer_in
from .patches import TilePlan

Logits = NDArray[np.float32]

_FIXED_POINT = float(2**36)
# |logit| <= 2**18, summed weights <= 7**3 (a tile of 7 at overlap 0.75 has stride 1), 36 fractional bits: 62.4 of 63.
LARGEST_LOGIT = float(2**18)
# Values per working array, so that a few arrays fit the cache.
_ADDED_AT_ONCE = 2**15
_FINISHED_AT_ONCE = 2**18


@dataclass(frozen=True, eq=False)
class Block:
    """Blended logits ``(K, x, y, z)`` of the voxels in ``box``, or their sums."""

    box: Box
    logits: Logits


class BlendMerger:
    """Sums the weighted logits of overlapping tiles and yields planes once no later row overlaps them.

    The sums are a ring buffer ``(B, A, K, T)`` of T planes, the thickness of a tile. This order keeps the values of
    one tile close together in memory. With a floor of the weights, the sums of the weights are one more class.

    ``as_sums``: yield the integer sums, of which `mean_logits` makes logits once those of all tiles are added.
    """

    def __init__(
        self, plan: TilePlan, begin: int, buffers: Buffers | None, stack: ExitStack, *, as_sums: bool = False
    ) -> None:
        self._plan, self._begin, self._buffers, self._stack = plan, begin, buffers, stack
        self._as_sums = as_sums
        first, second = plan.across
        self._across = np.multiply.outer(plan.weights(second), plan.weights(first)) * _FIXED_POINT
        self._along = plan.weights(plan.axis)
        self._norm_across = plan.summed_weights(first), plan.summed_weights(second)
        self._norm_along = plan.summed_weights(plan.axis)
        self._floor = None if plan.floor is None else np.rint(plan.floor * _FIXED_POINT)
        self._classes = 0
        self._sums: Buffer | None = None

    def add(self, row: int, corner: tuple[int, int], logits: Logits) -> Iterator[Block]:
        """Add the logits of a tile to the sums. Yields nothing."""
        plan = self._plan
        if self._floor is not None:
            logits = np.concatenate([logits, np.ones((1, *logits.shape[1:]), np.float32)])
        sums = self._buffer(logits.shape[0])
        first, second = plan.across
        a, b = plan.starts[first][corner[0]], plan.starts[second][corner[1]]
        turned = logits.transpose(1 + second, 1 + first, 0, 1 + plan.axis)
        rows, width, classes, thick = turned.shape
        begin = plan.starts[plan.axis][row]
        ring, along = list(_on_ring(range(begin, begin + thick), thick)), np.roll(self._along, begin)
        at_once = min(rows, max(1, _ADDED_AT_ONCE // (width * classes * thick)))
        # Reused for every piece: allocating arrays of this size costs more than the arithmetic.
        shape = (at_once, width, classes, thick)
        values, exact, fixed = np.empty(shape, np.float32), np.empty(shape), np.empty(shape, np.int64)
        for low in range(0, rows, at_once):
            high = min(low + at_once, rows)
            part = slice(0, high - low)
            for planes, places in ring:
                values[part, ..., places] = turned[low:high, ..., planes]
            weights = self._across[low:high, :, np.newaxis, np.newaxis] * along
            if self._floor is not None:
                np.maximum(weights, self._floor, out=weights)
            np.multiply(values[part], weights, out=exact[part])
            np.rint(exact[part], out=exact[part])
            np.copyto(fixed[part], exact[part], casting="unsafe")
            place = slice(b + low, b + high), slice(a, a + width)
            summed = sums.read(*place)
            summed += fixed[part]
            sums.write(*place, summed)
        return iter(())

    def finish(self, row: int) -> Iterator[Block]:
        """Yield the planes that no later row overlaps, in strips, and clear them."""
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
        """Return the blended logits of a strip ``(b, A, K, T)``, or None if it is all padding."""
        plan = self._plan
        first, second = plan.across
        pad_first, pad_second = plan.pad_before[first], plan.pad_before[second]
        low = max(strip.start, pad_second)
        high = min(strip.stop, pad_second + plan.shape[second])
        if low >= high:
            return None
        width = slice(pad_first, pad_first + plan.shape[first])
        kept = sums[low - strip.start : high - strip.start, width]
        pad = plan.pad_before[plan.axis]
        box = Box.whole(plan.shape).with_range(plan.axis, planes.start - pad, planes.stop - pad)
        box = box.with_range(second, low - pad_second, high - pad_second)
        order = {plan.axis: 1, second: 2, first: 3}
        turn = (0, *(order[axis] for axis in range(3)))
        if self._as_sums:
            whole = np.empty((kept.shape[2], len(planes), *kept.shape[:2]), np.int64)
            for number, places in _on_ring(planes, plan.tile[plan.axis]):
                whole[:, number] = kept[..., places].transpose(2, 3, 0, 1)
            return Block(box, whole.transpose(turn))
        norm = np.multiply.outer(self._norm_across[1][low:high], self._norm_across[0][width]) * _FIXED_POINT
        rows, columns, classes, thick = kept.shape
        weighted = self._floor is not None
        logits = np.empty((classes - weighted, len(planes), rows, columns), np.float32)
        at_once = max(1, _ADDED_AT_ONCE // (rows * classes * thick))
        for number, places in _on_ring(planes, thick):
            along = self._norm_along[planes.start + number.start : planes.start + number.stop]
            for start in range(0, columns, at_once):
                piece = slice(start, start + at_once)
                sums = kept[:, piece, :, places]
                if weighted:
                    mean = sums[:, :, :-1] / sums[:, :, -1:]
                else:
                    mean = sums / (norm[:, piece, np.newaxis, np.newaxis] * along)
                logits[:, number, :, piece] = mean.transpose(2, 3, 0, 1)
        return Block(box, logits.transpose(turn))

    def _buffer(self, classes: int) -> Buffer:
        if self._sums is None:
            plan = self._plan
            first, second = plan.across
            shape = (plan.padded[second], plan.padded[first], classes, plan.tile[plan.axis])
            self._classes = classes
            self._sums = self._stack.enter_context(buffer_in(self._buffers, shape, np.int64))
        return self._sums


def mean_logits(plan: TilePlan, box: Box, sums: NDArray[np.int64]) -> Logits:
    """Return the logits ``(K, x, y, z)`` of the sums of all tiles of a plan: those that a `BlendMerger` yields."""
    if plan.floor is not None:
        return (sums[:-1] / sums[-1:]).astype(np.float32)
    moved = box.moved(plan.pad_before)
    x, y, z = (plan.summed_weights(axis)[part] for axis, part in enumerate(moved.slices))
    # exact in any order: three numbers of at most 17 bits each, times a power of two
    norm = np.multiply.outer(np.multiply.outer(x, y), z * _FIXED_POINT)
    return (sums / norm).astype(np.float32)


def _on_ring(planes: range, thick: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of ``planes`` with their slices of a ring of ``thick``: one pair, or two if it wraps."""
    begin = planes.start % thick
    until = min(len(planes), thick - begin)
    yield slice(0, until), slice(begin, begin + until)
    if until < len(planes):
        yield slice(until, len(planes)), slice(0, len(planes) - until)


class HaloMerger:
    """Keeps the core of each tile and discards its halo."""

    def __init__(self, plan: TilePlan, begin: int) -> None:
        self._plan = plan
        self._least = [plan.pad_before[axis] + (begin if axis == plan.axis else 0) for axis in range(3)]
        self._cores = tuple(plan.cores(axis) for axis in range(3))

    def add(self, row: int, corner: tuple[int, int], logits: Logits) -> Iterator[Block]:
        """Yield the core of a tile."""
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

    def finish(self, row: int) -> Iterator[Block]:  # noqa: ARG002 - as BlendMerger.finish
        """Yield nothing: `add` yields every block."""
        return iter(())


def merging_bytes(plan: TilePlan, classes: int, held: Callable[[int, int], int]) -> int:
    """Return the memory of a `BlendMerger` in bytes; ``held(total, piece)`` is that of a buffer read piece by piece."""
    first, second = plan.across
    thick, classes = plan.tile[plan.axis], classes + (plan.floor is not None)
    line = plan.padded[first] * classes * thick
    slab = line * plan.padded[second]
    # A strip of sums and its logits, or the pieces of one tile in three types.
    strip = min(slab, max(line, _FINISHED_AT_ONCE))
    return held(slab * 8, strip * 8) + strip * 12
