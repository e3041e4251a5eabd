"""Statistics of each label of a label map, streamed along any axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Grid, shape3
from .components import ComponentCounter, ComponentMeter, Pieces
from .label_map import Label, Labels, LabelTable


@dataclass(frozen=True)
class ChannelStatistics:
    """Statistics of one input channel inside a label; None if the label is empty."""

    mean: float | None
    std: float | None
    min: float | None
    max: float | None


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of one label.

    ``volume`` is in the grid's unit cubed, ``bounding_box`` half-open in voxels, ``centroid_voxel`` in voxel indices,
    ``centroid_world`` in RAS+ world coordinates. ``components`` counts 26-connected components.
    """

    value: int
    name: str
    voxels: int
    volume: float
    channels: tuple[ChannelStatistics, ...]
    bounding_box: Box | None
    centroid_voxel: tuple[float, float, float] | None
    centroid_world: tuple[float, float, float] | None
    components: int
    touches_border: bool


class StatisticsAccumulator:
    """Accumulates statistics from consecutive boxes along ``axis``, each spanning the other two axes.

    ``with_pieces``: each box comes with levels, which are summed over the components.
    """

    def __init__(self, grid: Grid, table: LabelTable, channels: int, axis: int, *, with_pieces: bool = False) -> None:
        self._grid = grid
        self._table = table
        self._measures = {value: _Measures(channels) for value in table.values}
        self._counters = {value: ComponentCounter(axis) for value in table.values if not with_pieces}
        self._meters = {value: ComponentMeter(axis) for value in table.values if with_pieces}

    def add(
        self, box: Box, labels: Labels, image: Sequence[NDArray[Any]], levels: NDArray[np.uint8] | None = None
    ) -> None:
        """Add labels ``(x, y, z)`` of the voxels in ``box``, and an array of the same shape for each channel."""
        for value, measures in self._measures.items():
            inside = labels == value
            if levels is None:
                self._counters[value].add(inside)
            else:
                self._meters[value].add(inside, levels)
            measures.add(box, inside, [_values(channel, inside) for channel in image])

    def result(self) -> tuple[LabelStatistics, ...]:
        """Return the statistics of each label in the table's order."""
        counts = {value: counter.result() for value, counter in self._counters.items()}
        counts |= {value: len(pieces.voxels) for value, pieces in self.pieces().items()}
        return tuple(
            self._measures[label.value].result(label, self._grid, counts[label.value]) for label in self._table.labels
        )

    def pieces(self) -> dict[int, Pieces]:
        """Return the components of each label by its value; nothing without levels."""
        return {value: meter.result() for value, meter in self._meters.items()}


class _Measures:
    def __init__(self, channels: int) -> None:
        self._voxels = 0
        self._index_sum = np.zeros(3)
        self._box: Box | None = None
        self._channels = [_Moments() for _ in range(channels)]

    def add(self, box: Box, inside: NDArray[np.bool_], values: Sequence[NDArray[Any]]) -> None:
        count = int(np.count_nonzero(inside))
        if count == 0:
            return
        low, high = [], []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            profile = np.count_nonzero(inside, axis=others)
            hit = np.flatnonzero(profile)
            low.append(box.start[axis] + int(hit[0]))
            high.append(box.start[axis] + int(hit[-1]) + 1)
            self._index_sum[axis] += float(profile @ np.arange(box.start[axis], box.stop[axis], dtype=np.float64))
        if self._box is not None:
            low, high = list(map(min, low, self._box.start)), list(map(max, high, self._box.stop))
        self._box = Box(shape3(low), shape3(high))
        self._voxels += count
        for moments, channel in zip(self._channels, values, strict=True):
            moments.add(channel.astype(np.float64))

    def result(self, label: Label, grid: Grid, components: int) -> LabelStatistics:
        box = self._box
        centroid = None if box is None else self._index_sum / self._voxels
        touches = box is not None and (0 in box.start or any(s == n for s, n in zip(box.stop, grid.shape, strict=True)))
        return LabelStatistics(
            value=label.value,
            name=label.name,
            voxels=self._voxels,
            volume=self._voxels * grid.voxel_volume,
            channels=tuple(moments.result() for moments in self._channels),
            bounding_box=box,
            centroid_voxel=None if centroid is None else _triple(centroid),
            centroid_world=None if centroid is None else _triple(grid.world(centroid)),
            components=components,
            touches_border=touches,
        )


class _Moments:
    """Mean and deviation by the pairwise update of Chan, Golub and LeVeque (1979), stable for large offsets."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._min, self._max = np.inf, -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        mean, total = float(values.mean()), self._count + values.size
        change = mean - self._mean
        self._squares += float(((values - mean) ** 2).sum()) + change**2 * self._count * values.size / total
        self._mean += change * values.size / total
        self._count = total
        self._min = min(self._min, float(values.min()))
        self._max = max(self._max, float(values.max()))

    def result(self) -> ChannelStatistics:
        if self._count == 0:
            return ChannelStatistics(None, None, None, None)
        return ChannelStatistics(self._mean, float(np.sqrt(self._squares / self._count)), self._min, self._max)


def _values(channel: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the values inside, in any order; in memory's order for Fortran arrays, which is four times faster."""
    if channel.flags.f_contiguous and inside.flags.f_contiguous:
        return channel.ravel("F")[inside.ravel("F")]
    return channel[inside]


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
