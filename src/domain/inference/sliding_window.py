"""Sliding-window inference, streamed along one axis.

Tiles are inferred row by row along the plan's axis. A plane is yielded once no later row overlaps it, so memory holds
one slab as thick as a tile, never classes x volume. With buffers outside memory it holds one row of tiles. Blending is
exact: inference that begins at any plane gives the same bits as a run from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..geometry.grid import shape3
from .blending import LARGEST_LOGIT, BlendMerger, Block, HaloMerger, Logits, merging_bytes
from .buffers import Buffer, Buffers, MemoryBuffer, buffer_in, is_large
from .patches import Padding, TilePlan

# Columns that fit the cache during a transpose: 1.7 ms instead of 5.6 ms for a tile of 2 x 256 x 256 x 16.
_COLUMNS_AT_ONCE = 4096


class Pending(Protocol):
    """Logits that are being computed."""

    def result(self) -> Logits:
        """Wait for the logits and return them."""


InferFunction = Callable[[Logits], Logits]
StartFunction = Callable[[Logits], Pending]


def stitch(
    plan: TilePlan,
    planes: Iterable[NDArray[np.float32]],
    infer: InferFunction | StartFunction,
    *,
    batch: int = 1,
    on_tiles: Callable[[int], None] | None = None,
    begin: int = 0,
    buffers: Buffers | None = None,
    as_sums: bool = False,
) -> Iterator[Block]:
    """Infer every tile and yield the blended logits of each voxel once, in blocks ordered along the visiting axis.

    Args:
        plan: the tiles.
        planes: the whole volume as planes ``(C, A, B)`` in order along ``plan.axis``; A and B are ``plan.across``.
        infer: network call, ``(N, C, x, y, z)`` to ``(N, K, x, y, z)``. If it returns a pending result, the previous
            tiles are blended meanwhile.
        batch: tiles per call.
        on_tiles: called with the number of tiles just inferred.
        begin: the first plane to yield; tiles that contribute only to earlier planes are skipped.
        buffers: for large arrays; memory if None.
        as_sums: yield the integer sums of the weighted logits, except in halo blending, which sums nothing.

    Yields:
        One block a tile in halo blending; else strips of the planes that a row of tiles completes.
    """
    first, second = plan.across
    row_starts, first_row = plan.starts[plan.axis], plan.first_row(begin)
    corners = list(product(range(len(plan.starts[first])), range(len(plan.starts[second]))))

    def cut(window: _Window) -> Iterator[_Inferred]:
        for row, start in enumerate(row_starts[first_row:], first_row):
            window.move(start)
            for at in range(0, len(corners), batch):
                chosen = corners[at : at + batch]
                tiles = window.tiles(chosen)
                yield _Inferred(row, chosen, at + batch >= len(corners), tiles.shape, infer(tiles))

    with ExitStack() as stack:
        window = _Window(plan, _padded_planes(plan, iter(planes)), row_starts[first_row], buffers, stack)
        halo = plan.blending == "halo"
        merger = HaloMerger(plan, begin) if halo else BlendMerger(plan, begin, buffers, stack, as_sums=as_sums)
        for inferred in _one_ahead(cut(window)):
            result = inferred.logits if isinstance(inferred.logits, np.ndarray) else inferred.logits.result()
            for corner, logits in zip(inferred.corners, _checked(result, inferred.shape), strict=True):
                yield from merger.add(inferred.row, corner, logits)
            if on_tiles is not None:
                on_tiles(len(inferred.corners))
            if inferred.ends_row:
                yield from merger.finish(inferred.row)


@dataclass(frozen=True, eq=False)
class _Inferred:
    """Tiles of one row, the shape of their batch, and their logits."""

    row: int
    corners: Sequence[tuple[int, int]]
    ends_row: bool
    shape: tuple[int, ...]
    logits: Logits | Pending


def _one_ahead(inferred: Iterator[_Inferred]) -> Iterator[_Inferred]:
    """Yield the same items; a pending one only after the next has been started."""
    before: _Inferred | None = None
    for following in inferred:
        if before is not None:
            yield before
            before = None
        if isinstance(following.logits, np.ndarray):
            yield following
        else:
            before = following
    if before is not None:
        yield before


def assemble_planes(plan: TilePlan, blocks: Iterable[Block], buffers: Buffers | None = None) -> Iterator[Logits]:
    """Yield blocks as planes ``(K, A, B)`` in order along the visiting axis, holding one row of blocks at a time."""
    first, second = plan.across
    with ExitStack() as stack:
        buffer: Buffer | None = None
        reached = end = 0
        for block in blocks:
            start, stop = block.box.start[plan.axis], block.box.stop[plan.axis]
            if buffer is None:
                shape = (plan.tile[plan.axis], plan.shape[second], block.logits.shape[0], plan.shape[first])
                buffer = stack.enter_context(buffer_in(buffers, shape, np.float32))
            if start != reached:
                yield from _buffered(buffer, end - reached, plan.shape[second])
            reached, end = start, stop
            place = slice(0, stop - start), block.box.slices[second]
            row = buffer.read(*place)
            row[..., block.box.slices[first]] = block.logits.transpose(1 + plan.axis, 1 + second, 0, 1 + first)
            buffer.write(*place, row)
        if buffer is not None:
            yield from _buffered(buffer, end - reached, plan.shape[second])


def _buffered(buffer: Buffer, count: int, height: int) -> Iterator[Logits]:
    """Yield copies ``(K, A, B)`` of the first planes of a buffer ``(T, B, K, A)``."""
    for number in range(count):
        plane = buffer.read(slice(number, number + 1), slice(0, height))[0]
        yield plane.transpose(1, 2, 0).copy()


class _Window:
    """Ring buffer ``(T, A, C, B)`` of the padded planes that tiles are cut from; each plane is read once."""

    def __init__(
        self,
        plan: TilePlan,
        planes: Iterator[NDArray[np.float32]],
        start: int,
        buffers: Buffers | None,
        stack: ExitStack,
    ) -> None:
        self._plan, self._planes, self._buffers, self._stack = plan, planes, buffers, stack
        self._first = self._start = self._reached = start
        self._buffer: Buffer = MemoryBuffer((0, 0, 0, 0), np.float32)
        self._rows: tuple[int, NDArray[np.float32]] | None = None
        next(islice(planes, start, start), None)  # skip the planes before start

    def move(self, start: int) -> None:
        """Read planes up to a tile's thickness beyond ``start``, the first plane of the next tiles."""
        thick = self._plan.tile[self._plan.axis]
        self._start, self._rows = start, None
        for plane in islice(self._planes, start + thick - self._reached):
            channels, width, height = plane.shape
            if self._reached == self._first:
                buffer = buffer_in(self._buffers, (thick, width, channels, height), np.float32)
                self._buffer = self._stack.enter_context(buffer)
            slot = self._reached % thick
            self._buffer.write(slice(slot, slot + 1), slice(0, width), plane.transpose(1, 0, 2)[np.newaxis])
            self._reached += 1
        if self._reached < start + thick:
            raise ValueError(f"planes: expected {start + thick} or more, padding included, got {self._reached}")

    def tiles(self, corners: Sequence[tuple[int, int]]) -> Logits:
        """Return tiles ``(N, C, x, y, z)``; each corner is a pair of indices into ``plan.starts``."""
        plan = self._plan
        first, second = plan.across
        thick, tiles = plan.tile[plan.axis], []
        for corner in corners:
            rows, b = self._across(plan.starts[first][corner[0]]), plan.starts[second][corner[1]]
            order = [(self._start + number) % thick for number in range(thick)]
            planes = [rows[slot, :, :, b : b + plan.tile[second]].transpose(1, 0, 2) for slot in order]
            tiles.append(from_planes(planes, plan.axis))
        return tiles[0][np.newaxis] if len(tiles) == 1 else np.stack(tiles)

    def _across(self, start: int) -> NDArray[np.float32]:
        """Return the part ``(T, a, C, B)`` of all planes that tiles with this start share."""
        if self._rows is None or self._rows[0] != start:
            plan = self._plan
            width, self._rows = plan.tile[plan.across[0]], None
            self._rows = start, self._buffer.read(slice(0, plan.tile[plan.axis]), slice(start, start + width))
        return self._rows[1]


def from_planes(planes: Sequence[NDArray[np.float32]], axis: int) -> NDArray[np.float32]:
    """Stack planes ``(C, A, B)`` along one of three axes to a tile ``(C, x, y, z)``."""
    stacked = np.stack(planes)
    if axis < 2:
        return np.ascontiguousarray(np.moveaxis(stacked, 0, 1 + axis))
    return _transposed(stacked.reshape(len(planes), -1)).reshape(*stacked.shape[1:], len(planes))


def _transposed(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the contiguous transpose of a matrix of few long rows."""
    rows, columns = matrix.shape
    transposed = np.empty((columns, rows), matrix.dtype)
    for start in range(0, columns, _COLUMNS_AT_ONCE):
        part = slice(start, start + _COLUMNS_AT_ONCE)
        transposed[part] = matrix[:, part].T
    return transposed


class LogitRangeError(ModelError):
    """Logits that are not finite, or too large to be blended."""


def _checked(logits: Any, tiles: tuple[int, ...]) -> Logits:
    """Return the logits as float32. Raises ModelError for a wrong shape or values that cannot be summed."""
    expected = (tiles[0], "K", *tiles[2:])
    if logits.ndim != 5 or logits.shape[0] != tiles[0] or logits.shape[2:] != tiles[2:] or not logits.size:
        raise ModelError(
            "network output",
            expected=f"logits of shape {expected}",
            got=f"{logits.shape}",
            do="use a network whose output has its input's spatial shape, or correct the card's patch and divisor",
        )
    # As Python floats: a comparison in float16 would accept Inf.
    low, high = float(logits.min()), float(logits.max())
    if not (low >= -LARGEST_LOGIT and high <= LARGEST_LOGIT):
        raise LogitRangeError(
            "network output",
            expected=f"finite logits within +-{LARGEST_LOGIT:.0f}",
            got=f"{low:g} to {high:g}",
            do="check the card's intensity steps and the network's weights",
        )
    return np.asarray(logits, dtype=np.float32)


def _padded_planes(plan: TilePlan, planes: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield the planes of the padded volume; only an axis shorter than a tile is padded."""
    before = plan.pad_before
    after = shape3(p - n - b for p, n, b in zip(plan.padded, plan.shape, before, strict=True))
    first, second = plan.across
    around = ((0, 0), (before[first], after[first]), (before[second], after[second]))
    if before[plan.axis] + after[plan.axis] == 0:
        for plane in planes:
            yield _pad(plane, around, plan.padding)
        return
    # The axis is shorter than one tile, so the volume fits the window's memory.
    volume = np.stack(list(planes), axis=1)
    along = (before[plan.axis], after[plan.axis])
    yield from np.moveaxis(_pad(volume, (around[0], along, *around[1:]), plan.padding), 1, 0)


def _pad(array: NDArray[np.float32], widths: Sequence[tuple[int, int]], padding: Padding) -> NDArray[np.float32]:
    if not any(a or b for a, b in widths):
        return array
    if padding.mode == "constant":
        return np.pad(array, widths, mode="constant", constant_values=padding.value)
    return np.pad(array, widths, mode=padding.mode)


def slab_bytes(
    plan: TilePlan, channels: int, classes: int, *, batch: int = 1, assembled: bool = False, has_buffers: bool = False
) -> int:
    """Return the peak memory of `stitch` in bytes, for ``channels`` in and ``classes`` out, without the network's.

    ``assembled``: blocks are assembled to planes. ``has_buffers``: large arrays are outside memory and not counted.
    """
    first, second = plan.across
    plane, thick = plan.padded[first] * plan.padded[second], plan.tile[plan.axis]
    tile = plan.tile[0] * plan.tile[1] * plan.tile[2]

    def held(size: int, piece: int) -> int:
        return piece if has_buffers and is_large(size) else size

    window = held(plane * thick * channels * 4, thick * plan.tile[first] * plan.padded[second] * channels * 4)
    # Tiles and logits of two calls (one is inferred while the other is blended), a copy, and the logits kept of
    # constant tiles.
    size = window + plane * channels * 4 + batch * tile * (2 * channels + 4 * classes) * 4
    if assembled:
        size += held(plane * thick * classes * 4, thick * plan.tile[second] * plan.padded[first] * classes * 4)
        size += 2 * plane * classes * 4
    return size if plan.blending == "halo" else size + merging_bytes(plan, classes, held)
