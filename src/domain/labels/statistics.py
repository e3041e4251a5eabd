"""Statistics of each label of a label map, streamed along any axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exact import Moments
from ..geometry.grid import Box, Grid, shape3
from .components import ComponentCounter, ComponentMeter, Pieces
from .label_map import Labels, LabelTable


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
        self._grid, self._table = grid, table
        self._measures = {value: Measures.empty(channels) for value in table.values}
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
            measures.add(box, inside, image)

    def result(self) -> tuple[LabelStatistics, ...]:
        """Return the statistics of each label in the table's order."""
        counts = {value: counter.result() for value, counter in self._counters.items()}
        counts |= {value: len(pieces.voxels) for value, pieces in self.pieces().items()}
        return label_statistics(self._grid, self._table, self._measures, counts)

    def pieces(self) -> dict[int, Pieces]:
        """Return the components of each label by its value; nothing without levels."""
        return {value: meter.result() for value, meter in self._meters.items()}


@dataclass
class Measures:
    """What is counted and summed of a label: the same whatever the parts, and their order.

    ``index_sums`` are the sums of voxel indices along each axis.
    """

    voxels: int
    index_sums: list[int]
    box: Box | None
    channels: list[Moments]

    @classmethod
    def empty(cls, channels: int) -> Measures:
        """Return the measures of no voxels."""
        return cls(0, [0, 0, 0], None, [Moments() for _ in range(channels)])

    def add(self, box: Box, inside: NDArray[np.bool_], image: Sequence[NDArray[Any]]) -> None:
        """Add the voxels of ``box`` that are inside."""
        count = int(np.count_nonzero(inside))
        if count == 0:
            return
        low, high, sums = [], [], []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            profile = np.count_nonzero(inside, axis=others)
            hit = np.flatnonzero(profile)
            low.append(box.start[axis] + int(hit[0]))
            high.append(box.start[axis] + int(hit[-1]) + 1)
            sums.append(int(profile @ np.arange(box.start[axis], box.stop[axis], dtype=np.int64)))
        moments = [Moments() for _ in image]
        for channel, found in zip(image, moments, strict=True):
            found.add(_values(channel, inside))
        self.merge(Measures(count, sums, Box(shape3(low), shape3(high)), moments))

    def merge(self, other: Measures) -> None:
        """Add the voxels of another part."""
        self.voxels += other.voxels
        self.index_sums = [a + b for a, b in zip(self.index_sums, other.index_sums, strict=True)]
        self.box = other.box if self.box is None else self.box if other.box is None else self.box.around_both(other.box)
        for mine, theirs in zip(self.channels, other.channels, strict=True):
            mine.merge(theirs)

    def as_data(self) -> dict[str, Any]:
        """Return plain data, which `of_data` makes the same of."""
        box = None if self.box is None else [self.box.start, self.box.stop]
        channels = [channel.numbers() for channel in self.channels]
        return {"voxels": self.voxels, "index_sums": self.index_sums, "box": box, "channels": channels}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Measures:
        """Return the measures of plain data."""
        box = None if data["box"] is None else Box(*map(shape3, data["box"]))
        return cls(data["voxels"], data["index_sums"], box, list(map(Moments.of_numbers, data["channels"])))


def label_statistics(
    grid: Grid, table: LabelTable, measures: Mapping[int, Measures], components: Mapping[int, int]
) -> tuple[LabelStatistics, ...]:
    """Return the statistics of each label in the table's order, from measures and components by label."""
    return tuple(
        _statistics(grid, label.value, label.name, measures[label.value], components[label.value])
        for label in table.labels
    )


def _statistics(grid: Grid, value: int, name: str, found: Measures, components: int) -> LabelStatistics:
    box = found.box
    centroid = None if box is None else np.array([total / found.voxels for total in found.index_sums])
    touches = box is not None and (0 in box.start or any(s == n for s, n in zip(box.stop, grid.shape, strict=True)))
    return LabelStatistics(
        value=value,
        name=name,
        voxels=found.voxels,
        volume=found.voxels * grid.voxel_volume,
        channels=tuple(map(_channel_statistics, found.channels)),
        bounding_box=box,
        centroid_voxel=None if centroid is None else _triple(centroid),
        centroid_world=None if centroid is None else _triple(grid.world(centroid)),
        components=components,
        touches_border=touches,
    )


def _channel_statistics(found: Moments) -> ChannelStatistics:
    if found.count == 0:
        return ChannelStatistics(None, None, None, None)
    return ChannelStatistics(found.mean, found.std, found.low, found.high)


def _values(channel: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the values inside, in any order; in memory's order for Fortran arrays, which is four times faster."""
    if channel.flags.f_contiguous and inside.flags.f_contiguous:
        return channel.ravel("F")[inside.ravel("F")]
    return channel[inside]


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
