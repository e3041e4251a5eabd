"""Blocks of tiles that are inferred on their own, on any machine, and what their neighbours need of them.

Each tile belongs to one block, so that none is inferred twice. Voxels that the tiles of one block alone reach are
finished there. Of the others, every block gives the sums of its own tiles, and the last of them adds these up: they are
integers, so the result has the bits of a run without blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Shape3, shape3
from .blending import Block, mean_logits
from .patches import TilePlan
from .sliding_window import InferFunction, StartFunction, stitch

Range = tuple[int, int]


@dataclass(frozen=True)
class Cell:
    """Voxels that the tiles of the same blocks reach. The last of these blocks finishes them."""

    box: Box
    blocks: tuple[int, ...]

    @property
    def owner(self) -> int:
        """The block that finishes the voxels."""
        return self.blocks[-1]


@dataclass(frozen=True, eq=False)
class CellSums:
    """Sums ``(K, x, y, z)`` of the weighted logits of one block's tiles in a cell; integers."""

    cell: Cell
    sums: NDArray[np.int64]


@dataclass(frozen=True)
class TileBlocks:
    """The tiles of a plan in blocks of at most ``tiles`` along each axis; blocks are numbered, z fastest."""

    plan: TilePlan
    tiles: Shape3

    @classmethod
    def of_edge(cls, plan: TilePlan, edge: int) -> TileBlocks:
        """Return blocks of about ``edge`` voxels along each axis, one tile at least."""
        tiles = []
        for axis in range(3):
            starts = plan.starts[axis]
            stride = (starts[-1] - starts[0]) / max(1, len(starts) - 1)
            tiles.append(len(starts) if stride == 0 else max(1, min(len(starts), int(edge / stride))))
        return cls(plan, shape3(tiles))

    @property
    def count(self) -> int:
        """Number of blocks."""
        return math.prod(self.shape)

    @cached_property
    def shape(self) -> Shape3:
        """Number of blocks along each axis."""
        return shape3(len(rows) for rows in self._rows)

    def part(self, block: int) -> tuple[TilePlan, Box]:
        """Return a plan of a block's tiles alone, and the voxels of the volume that it is a plan of."""
        plan, starts, padded, before, low, high = self.plan, [], [], [], [], []
        for axis, (first, end) in enumerate(self._rows_of(block)):
            chosen = plan.starts[axis][first:end]
            pad, length = plan.pad_before[axis], plan.shape[axis]
            starts.append(tuple(start - chosen[0] for start in chosen))
            padded.append(chosen[-1] + plan.tile[axis] - chosen[0])
            before.append(max(0, pad - chosen[0]))
            low.append(max(0, chosen[0] - pad))
            high.append(min(length, chosen[-1] + plan.tile[axis] - pad))
        box = Box(shape3(low), shape3(high))
        x, y, z = starts
        part = replace(plan, shape=box.shape, padded=shape3(padded), pad_before=shape3(before), starts=(x, y, z))
        return part, box

    def own(self, block: int) -> Box:
        """Return the voxels that a block finishes. Every voxel of the volume belongs to one block."""
        places = self._place(block)
        ranges = [self._own[axis][at] for axis, at in enumerate(places)]
        return Box(shape3(low for low, _ in ranges), shape3(high for _, high in ranges))

    def cells(self, block: int) -> Iterator[Cell]:
        """Yield the voxels that a block's tiles contribute to, by the blocks that do."""
        along = [
            [cell for cell in self._cells[axis] if at in range(cell[1][0], cell[1][1])]
            for axis, at in enumerate(self._place(block))
        ]
        for ranges in product(*along):
            box = Box(shape3(cell[0][0] for cell in ranges), shape3(cell[0][1] for cell in ranges))
            blocks = tuple(self._number(place) for place in product(*(range(*cell[1]) for cell in ranges)))
            yield Cell(box, blocks)

    def seams(self, block: int) -> Iterator[Cell]:
        """Yield the voxels that a block finishes, and that tiles of other blocks contribute to."""
        return (cell for cell in self.cells(block) if cell.owner == block and len(cell.blocks) > 1)

    def meeting(self, box: Box) -> Iterator[int]:
        """Yield the blocks that finish voxels of a box."""
        along = [
            [at for at, (low, high) in enumerate(own) if low < stop and high > start]
            for own, start, stop in zip(self._own, box.start, box.stop, strict=True)
        ]
        return map(self._number, product(*along))

    @cached_property
    def _rows(self) -> tuple[tuple[Range, ...], ...]:
        """Rows of tiles of each block along each axis, shared out evenly."""
        rows = []
        for axis, most in enumerate(self.tiles):
            number = len(self.plan.starts[axis])
            blocks = -(-number // most)
            rows.append(tuple(pairwise([i * number // blocks for i in range(blocks + 1)])))
        return tuple(rows)

    @cached_property
    def _reach(self) -> tuple[tuple[Range, ...], ...]:
        """Voxels that the tiles of each block contribute to, along each axis."""
        plan, found = self.plan, []
        for axis in range(3):
            pad, length = plan.pad_before[axis], plan.shape[axis]
            edges = [(start, start + plan.tile[axis]) for start in plan.starts[axis]]
            ends = plan.cores(axis) if plan.blending == "halo" else edges
            both = [(ends[first][0] - pad, ends[end - 1][1] - pad) for first, end in self._rows[axis]]
            found.append(tuple((max(0, low), min(length, high)) for low, high in both))
        return tuple(found)

    @cached_property
    def _own(self) -> tuple[tuple[Range, ...], ...]:
        return tuple(tuple(pairwise([*(low for low, _ in reach), reach[-1][1]])) for reach in self._reach)

    @cached_property
    def _cells(self) -> tuple[tuple[tuple[Range, Range], ...], ...]:
        """Ranges of voxels along each axis, and the range of the blocks that contribute to each."""
        found = []
        for reach in self._reach:
            cuts = sorted({end for both in reach for end in both})
            cells = []
            for low, high in pairwise(cuts):
                blocks = [at for at, (start, stop) in enumerate(reach) if start <= low and high <= stop]
                cells.append(((low, high), (blocks[0], blocks[-1] + 1)))
            found.append(tuple(cells))
        return tuple(found)

    def _rows_of(self, block: int) -> Sequence[Range]:
        return [self._rows[axis][at] for axis, at in enumerate(self._place(block))]

    def _place(self, block: int) -> Shape3:
        _, y, z = self.shape
        return block // (y * z), block // z % y, block % z

    def _number(self, place: Sequence[int]) -> int:
        _, y, z = self.shape
        return (place[0] * y + place[1]) * z + place[2]


def infer_block(
    blocks: TileBlocks,
    number: int,
    planes: Iterable[NDArray[np.float32]],
    infer: InferFunction | StartFunction,
) -> Iterator[Block | CellSums]:
    """Infer the tiles of one block.

    Args:
        blocks: of the whole volume.
        number: of the block.
        planes: the voxels of ``blocks.part(number)`` as planes ``(C, A, B)`` in order along the plan's axis.
        infer: network call; see `stitch`.

    Yields:
        The logits of the voxels that no other block reaches; at the end, the sums of each other cell.
    """
    part, region = blocks.part(number)
    blended = part.blending != "halo"
    own, cells = blocks.own(number), list(blocks.cells(number)) if blended else []
    shared: dict[Box, NDArray[np.int64]] = {}
    for block in stitch(part, planes, infer, as_sums=True):
        box = block.box.moved(region.start)
        if not blended and (common := own.common(box)) is not None:
            yield Block(common, block.logits[:, *common.within(box).slices])
        for cell in cells:
            if (common := cell.box.common(box)) is None:
                continue
            sums = np.asarray(block.logits, np.int64)[:, *common.within(box).slices]
            if len(cell.blocks) == 1:
                yield Block(common, mean_logits(blocks.plan, common, sums))
                continue
            if cell.box not in shared:
                shared[cell.box] = np.zeros((len(sums), *cell.box.shape), np.int64)
            shared[cell.box][:, *common.within(cell.box).slices] = sums
    for cell in cells:
        if cell.box in shared:
            yield CellSums(cell, shared.pop(cell.box))
