"""How large blocks may be, and what a run in blocks takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...domain.errors import LimitError
from ...domain.inference.sliding_window import slab_bytes
from ...domain.inference.tile_blocks import TileBlocks
from ...ports.resources import Resources
from ..segmentation.case import MOST_ROW_BYTES
from ..segmentation.preparation.planning import free_bytes, size
from ..segmentation.preparation.prepare import Prepared

_EDGES = tuple(round(2048 / 2 ** (step / 2)) for step in range(23))  # 2048, 1448, 1024 ... 1
_BLOCKS_A_WORKER = 2
# For each voxel that is measured: labels, components, values and copies of them; that is decoded: logits, thrice.
_MEASURED_BYTES, _DECODED_BYTES = 32, 12


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of the blocks of a prepared run.

    With ``keeps_logits`` blocks pass on logits in place of labels. ``more_channels`` are blended beside the logits.
    """

    prepared: Prepared
    keeps_logits: bool
    more_channels: int = 0

    def worker_bytes(self, blocks: TileBlocks) -> int:
        """Return the memory of a worker in bytes, without the network's."""
        return max(self._bytes_of(blocks, number) for number in _extremes(blocks))

    def moved_bytes(self, blocks: TileBlocks) -> tuple[int, int]:
        """Return the bytes that blocks pass on to each other, and to the results, before compression."""
        plan = blocks.plan
        classes = self._classes + (plan.floor is not None)
        voxels = plan.shape[0] * plan.shape[1] * plan.shape[2]
        sums = 0
        if plan.blending != "halo":
            for number in range(blocks.count):
                shared = (cell.box.shape for cell in blocks.cells(number) if len(cell.blocks) > 1)
                sums += 8 * classes * sum(map(math.prod, shared))
        label_bits = max(self.prepared.card.output.table.values).bit_length()
        return sums, voxels * self._voxel_bytes if self.keeps_logits else voxels * label_bits // 8

    def box_edge(self, blocks: TileBlocks, free: int) -> int:
        """Return the edge in voxels of the boxes that are written and measured, within a worker's memory."""
        classes = self._classes if self.keeps_logits else 0
        fitting = int(max(0, free / (_MEASURED_BYTES + _DECODED_BYTES * classes)) ** (1 / 3))
        return max(1, min(fitting, *blocks.own(0).shape))

    @property
    def _classes(self) -> int:
        return self.prepared.card.output.channels + self.more_channels

    @property
    def _voxel_bytes(self) -> int:
        output = self.prepared.card.output
        return 4 * self._classes if self.keeps_logits else output.table.dtype.itemsize

    def _bytes_of(self, blocks: TileBlocks, number: int) -> int:
        card, (part, region), case = self.prepared.card, blocks.part(number), self.prepared.case
        channels, classes = len(card.input.channels), self._classes + (part.floor is not None)
        slab = slab_bytes(part, channels, classes)
        piece = 2 * math.prod(blocks.own(number).shape) * self._voxel_bytes
        cells = [math.prod(cell.box.shape) for cell in blocks.cells(number) if len(cell.blocks) > 1]
        sums = 0 if part.blending == "halo" else 8 * classes * (sum(cells) + 2 * max(cells, default=0))
        source = case.sources[0]
        row = math.prod(edge + 2 * chunk for edge, chunk in zip(region.shape, source.chunk, strict=True))
        row = row // region.shape[part.axis] * source.chunk[part.axis] * source.dtype.itemsize * case.channels
        whole = part.shape[part.across[0]] * part.shape[part.across[1]]
        share = whole / (blocks.plan.shape[part.across[0]] * blocks.plan.shape[part.across[1]])
        resampling = self.prepared.space.resampling_bytes(part.axis, channels, card.output, self._classes) * share
        return int(slab + piece + sums + min(row, MOST_ROW_BYTES) + resampling)


def chosen_blocks(
    sizes: BlockSizes, memory_bytes: int | None, resources: Resources, edge: int | None, workers: int
) -> TileBlocks:
    """Return the largest blocks that a worker's memory holds and that give every worker some.

    Args:
        sizes: of the run.
        memory_bytes: limit of a worker; None for half of what is free here.
        resources: of this machine: a worker holds about as much besides its block as this process.
        edge: in voxels, where it is stated.
        workers: their number.

    Raises:
        LimitError: the smallest blocks, or those stated, do not fit.
    """
    plan, free = sizes.prepared.plan, free_bytes(memory_bytes, resources)
    candidates = [TileBlocks.of_edge(plan, length) for length in ((edge,) if edge is not None else _EDGES)]
    fitting = [blocks for blocks in candidates if sizes.worker_bytes(blocks) <= free]
    if not fitting:
        least = sizes.worker_bytes(candidates[-1]) + (resources.resident_bytes() if memory_bytes is not None else 0)
        raise LimitError(
            "memory of a worker",
            expected=f"at least {size(least)}",
            got=size(free if memory_bytes is None else memory_bytes),
            do="raise the limit, or set a smaller `patch`"
            if edge is None
            else "raise the limit, or state smaller blocks",
        )
    enough = [blocks for blocks in fitting if blocks.count >= _BLOCKS_A_WORKER * workers]
    return enough[0] if enough else fitting[-1]


def _extremes(blocks: TileBlocks) -> set[int]:
    """Return blocks of which one is the largest: the first, the last, and one in the middle."""
    x, y, z = blocks.shape
    return {0, blocks.count - 1, (x // 2 * y + y // 2) * z + z // 2}
