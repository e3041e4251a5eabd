"""Stitching: scores of overlapping tiles become finished planes of a volume, streamed along one axis.

Tiles are visited row by row along the plan's axis. Blended logits are summed as 64-bit integers (multiples of
2**-36): integer addition is associative, so a voxel's sum is the same to the last bit whatever the visiting axis,
the batch or the slab. A plane that no later row touches is finished, handed on and forgotten, so the memory is one
tile-thick slab, never classes x volume. In halo blending each voxel comes from the one tile whose core it lies in,
and nothing is summed at all. For the same reasons stitching may begin at any plane: the rows of tiles that reach it or
a later one give these planes bit for bit as a run from the start does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .geometry import Box, shape3
from .planes import by_plane, from_planes
from .tiling import Padding, TilePlan

Scores = NDArray[np.float32]


class Pending(Protocol):
    """Scores that are being computed elsewhere."""

    def result(self) -> Scores:
        """The scores, waited for."""
        ...


ScoreFunction = Callable[[Scores], Scores]
StartFunction = Callable[[Scores], Pending]

_FIXED_POINT = float(2**36)
# |logit| up to 2**18, summed weights up to 7**3 (a tile of 7 at overlap 0.75 moves by 1) and 36 fractional bits: 62.4
# of 63.
LARGEST_LOGIT = float(2**18)


@dataclass(frozen=True, eq=False)
class Block:
    """Finished scores ``(K, x, y, z)`` of the voxels in ``box`` of the volume."""

    box: Box
    scores: Scores


def stitch(
    plan: TilePlan,
    planes: Iterable[NDArray[np.float32]],
    score: ScoreFunction | StartFunction,
    *,
    batch: int = 1,
    on_tiles: Callable[[int], None] | None = None,
    begin: int = 0,
) -> Iterator[Block]:
    """Score every tile and yield each voxel's blended scores once, in blocks ordered along the visiting axis.

    Args:
        plan: the tiles.
        planes: the whole volume as planes ``(C, A, B)`` in order along ``plan.axis``; A and B are ``plan.across``.
        score: network call, ``(N, C, x, y, z)`` to ``(N, K, x, y, z)``; where it returns before the scores are there,
            the tiles before are blended meanwhile.
        batch: tiles per call.
        on_tiles: called with the number of tiles just scored.
        begin: the first plane to yield; tiles that have no part in it or a later one are not scored.

    Yields:
        In halo blending one block a tile; otherwise one block a finished plane.
    """
    window: deque[NDArray[np.float32]] = deque()
    padded = _padded_planes(plan, iter(planes))
    merger = _HaloMerger(plan, begin) if plan.blending == "halo" else _BlendMerger(plan, begin)
    first, second = plan.across
    row_starts, first_row = plan.starts[plan.axis], plan.first_row(begin)
    next(islice(padded, row_starts[first_row], row_starts[first_row]), None)  # read past what is not needed

    def cut() -> Iterator[_Scored]:
        for row, start in enumerate(row_starts[first_row:], first_row):
            passed = start - row_starts[row - 1] if row > first_row else 0
            for _ in range(min(passed, len(window))):
                window.popleft()
            window.extend(islice(padded, plan.tile[plan.axis] - len(window)))
            corners = list(product(range(len(plan.starts[first])), range(len(plan.starts[second]))))
            for at in range(0, len(corners), batch):
                chosen = corners[at : at + batch]
                tiles = _cut(plan, window, chosen)
                yield _Scored(row, chosen, at + batch >= len(corners), tiles.shape, score(tiles))

    for scored in _one_ahead(cut()):
        result = scored.scores if isinstance(scored.scores, np.ndarray) else scored.scores.result()
        for corner, scores in zip(scored.corners, _checked(result, scored.shape), strict=True):
            yield from merger.add(scored.row, corner, scores)
        if on_tiles is not None:
            on_tiles(len(scored.corners))
        if scored.ends_row:
            yield from merger.finish(scored.row)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Tiles of one row that were handed to the network, their shape, and what it answers."""

    row: int
    corners: Sequence[tuple[int, int]]
    ends_row: bool
    shape: tuple[int, ...]
    scores: Scores | Pending


def _one_ahead(scored: Iterator[_Scored]) -> Iterator[_Scored]:
    """The same; what is still being scored is handed on when the next has been begun."""
    before: _Scored | None = None
    for following in scored:
        if before is not None:
            yield before
            before = None
        if isinstance(following.scores, np.ndarray):
            yield following
        else:
            before = following
    if before is not None:
        yield before


def assemble_planes(plan: TilePlan, blocks: Iterable[Block]) -> Iterator[Scores]:
    """Blocks as finished planes ``(K, A, B)`` in order along the visiting axis; needs no more than a row of them."""
    first, second = plan.across
    row: list[Scores] = []
    reached = 0
    for block in blocks:
        start, stop = block.box.start[plan.axis], block.box.stop[plan.axis]
        if start != reached:
            yield from row
            row, reached = [], start
        if not row:
            shape = (block.scores.shape[0], plan.shape[first], plan.shape[second])
            row = [np.empty(shape, np.float32) for _ in range(stop - start)]
        inside = (slice(None), block.box.slices[first], block.box.slices[second])
        for plane, scores in zip(row, np.moveaxis(block.scores, 1 + plan.axis, 0), strict=True):
            plane[inside] = scores
    yield from row


def _cut(plan: TilePlan, window: Sequence[NDArray[np.float32]], corners: Sequence[tuple[int, int]]) -> Scores:
    first, second = plan.across
    tiles = []
    for corner in corners:
        a, b = plan.starts[first][corner[0]], plan.starts[second][corner[1]]
        inside = (slice(None), slice(a, a + plan.tile[first]), slice(b, b + plan.tile[second]))
        tiles.append(from_planes([plane[inside] for plane in window], plan.axis))
    return tiles[0][np.newaxis] if len(tiles) == 1 else np.stack(tiles)


def _checked(scores: Any, tiles: tuple[int, ...]) -> Scores:
    """Scores that are safe to blend: right shape, finite, in the range of the fixed-point sums."""
    expected = (tiles[0], "K", *tiles[2:])
    if scores.ndim != 5 or scores.shape[0] != tiles[0] or scores.shape[2:] != tiles[2:] or not scores.size:
        raise ModelError(
            "network output",
            expected=f"scores of shape {expected}",
            got=f"{scores.shape}",
            do="use a network whose output has its input's spatial shape, or correct the card's patch and divisor",
        )
    # as Python floats: float16, compared in its own type, would let Inf in; and no copy of the scores is made
    low, high = float(scores.min()), float(scores.max())
    if not (low >= -LARGEST_LOGIT and high <= LARGEST_LOGIT):
        raise ModelError(
            "network output",
            expected=f"finite scores within +-{LARGEST_LOGIT:.0f}",
            got=f"{low:g} to {high:g}",
            do="check the card's intensity steps and the network's weights",
        )
    return np.asarray(scores, dtype=np.float32)


def _padded_planes(plan: TilePlan, planes: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Planes of the padded volume; only an axis shorter than a tile is padded."""
    before = plan.pad_before
    after = shape3(p - n - b for p, n, b in zip(plan.padded, plan.shape, before, strict=True))
    first, second = plan.across
    around = ((0, 0), (before[first], after[first]), (before[second], after[second]))
    if before[plan.axis] + after[plan.axis] == 0:
        for plane in planes:
            yield _pad(plane, around, plan.padding)
        return
    # The axis is shorter than one tile: all of it is in memory anyway.
    volume = np.stack(list(planes), axis=1)
    along = (before[plan.axis], after[plan.axis])
    yield from np.moveaxis(_pad(volume, (around[0], along, *around[1:]), plan.padding), 1, 0)


def _pad(array: NDArray[np.float32], widths: Sequence[tuple[int, int]], padding: Padding) -> NDArray[np.float32]:
    if not any(a or b for a, b in widths):
        return array
    if padding.mode == "constant":
        return np.pad(array, widths, mode="constant", constant_values=padding.value)
    if padding.mode == "edge":
        return np.pad(array, widths, mode="edge")
    return np.pad(array, widths, mode="reflect")


class _BlendMerger:
    """Sums weighted scores of overlapping tiles, plane by plane along the visiting axis."""

    def __init__(self, plan: TilePlan, begin: int) -> None:
        self._plan, self._begin = plan, begin
        first, second = plan.across
        self._across = np.multiply.outer(plan.weights(first), plan.weights(second)) * _FIXED_POINT
        self._along = plan.weights(plan.axis)
        self._norm = np.multiply.outer(plan.summed_weights(first), plan.summed_weights(second)) * _FIXED_POINT
        self._norm_along = plan.summed_weights(plan.axis)
        self._sums: deque[NDArray[np.int64]] = deque()

    def add(self, row: int, corner: tuple[int, int], scores: Scores) -> Iterator[Block]:  # noqa: ARG002
        plan = self._plan
        first, second = plan.across
        if not self._sums or len(self._sums) < plan.tile[plan.axis]:
            shape = (scores.shape[0], plan.padded[first], plan.padded[second])
            missing = plan.tile[plan.axis] - len(self._sums)
            self._sums.extend(np.zeros(shape, np.int64) for _ in range(missing))
        a, b = plan.starts[first][corner[0]], plan.starts[second][corner[1]]
        inside = (slice(None), slice(a, a + plan.tile[first]), slice(b, b + plan.tile[second]))
        # into the same memory for every plane: fresh arrays of this size cost more than the arithmetic
        shape = (scores.shape[0], plan.tile[first], plan.tile[second])
        weights, exact, fixed = np.empty(shape[1:]), np.empty(shape), np.empty(shape, np.int64)
        for sums, along, plane in zip(self._sums, self._along, by_plane(scores, plan.axis), strict=True):
            np.multiply(self._across, along, out=weights)
            np.multiply(plane, weights, out=exact)
            np.rint(exact, out=exact)
            np.copyto(fixed, exact, casting="unsafe")
            sums[inside] += fixed
        return iter(())

    def finish(self, row: int) -> Iterator[Block]:
        """Hand on the planes that no later row touches."""
        plan = self._plan
        starts = plan.starts[plan.axis]
        following = starts[row + 1] if row + 1 < len(starts) else plan.padded[plan.axis]
        first, second = plan.across
        kept = {a: slice(plan.pad_before[a], plan.pad_before[a] + plan.shape[a]) for a in (first, second)}
        for index in range(starts[row], following):
            sums = self._sums.popleft()
            position = index - plan.pad_before[plan.axis]
            if self._begin <= position < plan.shape[plan.axis]:
                plane = sums / (self._norm * self._norm_along[index])
                scores = plane[:, kept[first], kept[second]].astype(np.float32)
                box = Box.whole(plan.shape).with_range(plan.axis, position, position + 1)
                yield Block(box, np.expand_dims(scores, 1 + plan.axis))


class _HaloMerger:
    """Keeps the core of each tile and drops its halo."""

    def __init__(self, plan: TilePlan, begin: int) -> None:
        self._plan = plan
        self._least = [plan.pad_before[axis] + (begin if axis == plan.axis else 0) for axis in range(3)]
        self._cores = tuple(plan.cores(axis) for axis in range(3))

    def add(self, row: int, corner: tuple[int, int], scores: Scores) -> Iterator[Block]:
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
        yield Block(Box(shape3(start), shape3(stop)), scores[(slice(None), *cut)])

    def finish(self, row: int) -> Iterator[Block]:  # noqa: ARG002 - every block was handed on by add
        return iter(())


def slab_bytes(plan: TilePlan, channels: int, classes: int, *, batch: int = 1, assembled: bool = False) -> int:
    """Bytes that the stitcher holds at its peak for ``channels`` in and ``classes`` out, the network's not counted.

    ``assembled``: blocks are put together to planes, which halo blending does not do by itself.
    """
    first, second = plan.across
    plane, thick = plan.padded[first] * plan.padded[second], plan.tile[plan.axis]
    tile = plan.tile[0] * plan.tile[1] * plan.tile[2]
    window = plane * thick * channels * 4
    # two calls' tiles and scores, as one is scored while the other is blended, a copy of the scores, and those of flat
    # tiles, which are kept
    tiles = batch * tile * (2 * channels + 4 * classes) * 4
    if plan.blending == "halo":
        return window + tiles + (plane * thick * classes * 4 if assembled else 0)
    # int64 sums, and a few float64 planes while one is normalised
    return window + tiles + plane * thick * classes * 8 + 4 * plane * classes * 8
