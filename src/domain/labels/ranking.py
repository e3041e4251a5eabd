"""Where a mask is most uncertain: a ranked list of places, of pieces of labels, and of slices.

A place is a box of about 16 voxels of the finest spacing along each axis. Places tile the volume in RAS+ order, so the
ranking does not depend on how the volume is stored. Sums are of integers: they do not depend on the slabs either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, repeat
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Grid, Shape3, shape3
from .components import Pieces
from .label_map import Labels, LabelTable
from .uncertainty import CHANNELS, MOST, Levels

MOST_LISTED = 20
_EDGE = 16
_MOST_PLACES = 2**20
_UNCERTAIN = 50  # per cent of entropy: a probability of 0.11 to 0.89
# Axes whose spacing is this close to the coarsest are equally coarse.
_SAME_SPACING = 1e-5

Reason = Literal["border", "missed", "piece", "slice"]
Means = tuple[float, float, float]
ReadBox = Callable[[Box], tuple[Levels, Labels]]


@dataclass(frozen=True)
class Spot:
    """Somewhere to look.

    ``reason``: border, a place with labels; missed, a place without; piece, a component of a label that is uncertain on
    the whole; slice. ``label``: its name; empty where there is none. ``slice``: the index along the slice axis.
    ``voxel``: the most uncertain voxel of a place, else the centre; ``world``: the same in RAS+. ``voxels``: the number
    in the spot; ``entropy``, ``margin`` and ``disagreement``: their means, 0 to 1.
    """

    reason: Reason
    label: str
    slice: int
    voxel: Shape3
    world: tuple[float, float, float]
    voxels: int
    entropy: float
    margin: float
    disagreement: float
    why: str


@dataclass(frozen=True)
class Uncertainty:
    """Where to look first, the most uncertain first; at most 20 of each kind, and no two places that touch.

    ``slice_axis``: the stored axis of the coarsest spacing. ``entropy``, ``margin`` and ``disagreement``: the means of
    all voxels, 0 to 1.
    """

    slice_axis: Literal["x", "y", "z"]
    entropy: float
    margin: float
    disagreement: float
    places: tuple[Spot, ...]
    pieces: tuple[Spot, ...]
    slices: tuple[Spot, ...]


class UncertaintyRanking:
    """Sums the entropy of a volume over places and slices, from boxes in any order that cover it once."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._turn = grid, grid.reorientation_to("RAS")
        self._back = self._turn.inverse()
        ras = self._turn.apply_grid(grid)
        self._shape, self._edges = ras.shape, _edges(ras)
        self._sums = np.zeros([-(-n // edge) for n, edge in zip(ras.shape, self._edges, strict=True)], np.int64)
        coarsest = max(ras.spacing) * (1 - _SAME_SPACING)
        self._across = max(axis for axis in range(3) if ras.spacing[axis] >= coarsest)
        self._by_slice = np.zeros((len(CHANNELS), ras.shape[self._across]), np.int64)

    @property
    def slice_axis(self) -> int:
        """The stored axis along which slices are counted."""
        return self._turn.axes[self._across]

    def add(self, box: Box, levels: Levels) -> None:
        """Add the levels ``(3, x, y, z)`` of the stored voxels in ``box``."""
        sums, ras = self._turn.apply(levels[0]), self._back.source_box(box, self._shape)
        slices = slice(ras.start[self._across], ras.stop[self._across])
        for number in range(1, len(levels)):
            lines = np.moveaxis(self._turn.apply(levels[number]), self._across, 0)
            self._by_slice[number, slices] += lines.sum(axis=(1, 2), dtype=np.int64)
        place: list[slice] = [slice(0)] * 3
        # the axis that is contiguous in memory late, and that of slices last, after their sums
        order = sorted(range(3), key=lambda axis: (axis == self._across, -abs(sums.strides[axis])))
        for axis, kind in zip(order, (np.uint32, np.int64, np.int64), strict=True):
            if axis == self._across:
                total = sums.sum(axis=(order[0], order[1]), dtype=np.int64)
                self._by_slice[0, slices] += total
            edge, start, stop = self._edges[axis], ras.start[axis], ras.stop[axis]
            first = start // edge
            cuts = [start, *range((first + 1) * edge, stop, edge), stop]
            # a sixth of the time of reduceat
            lines = np.moveaxis(sums, axis, 0)
            parts = [np.add.reduce(lines[a - start : b - start], axis=0, dtype=kind) for a, b in pairwise(cuts)]
            sums = np.stack(parts, axis=axis)
            place[axis] = slice(first, first + len(cuts) - 1)
        self._sums[tuple(place)] += sums

    def places(self) -> Iterator[tuple[Box, float]]:
        """Yield every place as a stored box with its mean entropy, the most uncertain first."""
        for index in self._ranked():
            box = self._stored(self._place(index))
            yield box, self._sums[index] / (MOST * np.prod(box.shape))

    def result(self, pieces: Mapping[int, Pieces], table: LabelTable, read: ReadBox) -> Uncertainty:
        """Return the lists. ``pieces``: of each label by value; ``read`` returns levels and labels of a stored box."""
        axis = self.slice_axis
        return Uncertainty(
            ("x", "y", "z")[axis],
            *_means(self._by_slice.sum(axis=1), self._grid.voxel_count),
            tuple(self._place_spot(index, table, read) for index in islice(self._apart(), MOST_LISTED)),
            tuple(self._piece_spots(pieces, table)),
            tuple(self._slice_spots()),
        )

    def _ranked(self) -> Iterator[tuple[int, int, int]]:
        counts = [np.diff([*range(0, n, edge), n]) for n, edge in zip(self._shape, self._edges, strict=True)]
        voxels = np.multiply.outer(np.multiply.outer(counts[0], counts[1]), counts[2])
        for flat in np.argsort(-(self._sums / voxels), axis=None, kind="stable"):
            yield shape3(np.unravel_index(flat, self._sums.shape))

    def _apart(self) -> Iterator[tuple[int, int, int]]:
        """Yield the most uncertain places, without those that touch an earlier one, and without certain ones."""
        near = np.zeros(self._sums.shape, bool)
        for index in self._ranked():
            if not self._sums[index]:
                return
            if not near[index]:
                near[tuple(slice(max(0, at - 1), at + 2) for at in index)] = True
                yield index

    def _place(self, index: Shape3) -> Box:
        start = [at * edge for at, edge in zip(index, self._edges, strict=True)]
        stop = [min(at + edge, n) for at, edge, n in zip(start, self._edges, self._shape, strict=True)]
        return Box(shape3(start), shape3(stop))

    def _stored(self, ras: Box) -> Box:
        return self._turn.source_box(ras, self._grid.shape)

    def _place_spot(self, index: Shape3, table: LabelTable, read: ReadBox) -> Spot:
        place = self._place(index)
        levels, labels = map(self._turn.apply, read(self._stored(place)))
        entropy = levels[0]
        voxel = self._voxel(np.add(place.start, np.unravel_index(np.argmax(entropy), entropy.shape)))
        uncertain, total = int(np.count_nonzero(entropy >= _UNCERTAIN)), entropy.size
        found = [(int(np.count_nonzero(labels == label.value)), label.name) for label in table.labels]
        count, name = max(found, key=lambda one: one[0], default=(0, ""))
        means = _means(levels.sum(axis=(1, 2, 3), dtype=np.int64), total)
        why = f"{uncertain} of {total} voxels are uncertain"
        if count:
            return self._spot("border", name, voxel, voxel, total, means, f"{why}, {count} are {name}")
        return self._spot("missed", "", voxel, voxel, total, means, f"{why}, none has a label")

    def _piece_spots(self, pieces: Mapping[int, Pieces], table: LabelTable) -> Iterator[Spot]:
        """Yield the largest pieces with a mean entropy of half or more."""
        found: list[tuple[int, float, list[float], NDArray[np.float64], NDArray[np.int64], int]] = []
        for value, all_of in pieces.items():
            if not len(all_of.voxels):
                continue
            mean = all_of.levels[0] / all_of.voxels
            doubtful = mean >= _UNCERTAIN
            sizes, centres, levels = all_of.voxels[doubtful], all_of.centres[doubtful], all_of.levels.T[doubtful]
            found += zip(-sizes, -mean[doubtful], self._grid.world(centres).tolist(), centres, levels, repeat(value))
        for size, _, _, centre, sums, value in sorted(found, key=lambda one: one[:3])[:MOST_LISTED]:
            name, voxels = table.name_of(value), -int(size)
            why = f"a piece of {name} of {voxels} {'voxel' if voxels == 1 else 'voxels'}, uncertain on the whole"
            place, means = shape3(np.rint(centre)), _means(sums, voxels)
            yield self._spot("piece", name, place, centre.tolist(), voxels, means, why)

    def _slice_spots(self) -> Iterator[Spot]:
        across, edge = self._across, self._edges[self._across]
        entropy = self._by_slice[0]
        size = self._grid.voxel_count // len(entropy)
        for rank, at in enumerate(np.argsort(-entropy, kind="stable")[:MOST_LISTED], 1):
            if not entropy[at]:
                return
            row = np.take(self._sums, at // edge, axis=across)
            place = self._place(shape3(np.insert(np.unravel_index(np.argmax(row), row.shape), across, at // edge)))
            centre = np.add(place.start, place.stop) // 2
            centre[across] = at
            voxel = self._voxel(centre)
            why = f"number {rank} of {len(entropy)} slices by mean entropy"
            yield self._spot("slice", "", voxel, voxel, size, _means(self._by_slice[:, at], size), why)

    def _voxel(self, ras: Iterable[int]) -> Shape3:
        start = shape3(ras)
        return self._stored(Box(start, shape3(at + 1 for at in start))).start

    def _spot(
        self, reason: Reason, label: str, voxel: Shape3, at: Sequence[float], voxels: int, means: Means, why: str
    ) -> Spot:
        x, y, z = (float(length) for length in self._grid.world(at))
        return Spot(reason, label, voxel[self.slice_axis], voxel, (x, y, z), voxels, *means, why)


def _means(sums: NDArray[np.int64], voxels: int) -> Means:
    """Return mean entropy, margin and disagreement, 0 to 1, of sums of levels."""
    entropy, margin, disagreement = (float(total / (MOST * voxels)) for total in sums)
    return entropy, margin, disagreement


def _edges(grid: Grid) -> Shape3:
    """Return the edges of a place in voxels, about as long as 16 of the finest; longer beyond a million places."""
    edge, finest = float(_EDGE), min(grid.spacing)
    while True:
        edges = shape3(max(1, round(edge * finest / step)) for step in grid.spacing)
        if np.prod([-(-n // e) for n, e in zip(grid.shape, edges, strict=True)]) <= _MOST_PLACES:
            return edges
        edge *= 2
