"""Measures of tubes: lengths, radii, tortuosity and branching."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .centreline import CentreLine
from .graph import Points

PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True, eq=False)
class Segment:
    """A tube between two nodes: branch points or ends, numbered within the label.

    ``component``: which connected part of the label it is in. Sizes are in the grid's unit.
    """

    component: int
    start: int
    end: int
    line: CentreLine

    @property
    def length(self) -> float:
        """Length of the centre line."""
        return float(self._steps.sum())

    @property
    def distance(self) -> float:
        """Distance from one node to the other, straight on."""
        return float(np.linalg.norm(self.line.points[-1] - self.line.points[0]))

    @property
    def tortuosity(self) -> float | None:
        """Length over distance: 1 for a straight tube; None for one that ends where it begins."""
        return self.length / self.distance if self.distance > 0 else None

    @property
    def radius(self) -> float:
        """Mean radius of the sections along the length; of flat ones that of a circle of their area."""
        return self._mean(self.line.radii)

    @property
    def inscribed_radius(self) -> float:
        """Mean distance along the length to the nearest voxel outside: the smaller radius of a flat tube."""
        return self._mean(self.line.inscribed)

    @property
    def _steps(self) -> Points:
        steps: Points = np.linalg.norm(np.diff(self.line.points, axis=0), axis=1)
        return steps

    @property
    def weights(self) -> Points:
        """The length that each point stands for."""
        half = self._steps / 2
        found: Points = np.concatenate([half, [0.0]]) + np.concatenate([[0.0], half])
        return found

    def _mean(self, values: Points) -> float:
        return _average(values, self.weights)


def _average(values: Points, weights: Points) -> float:
    """Return the weighted mean; the plain one where nothing has a weight, as of voxels alone."""
    return float(np.average(values, weights=weights if weights.any() else None))


@dataclass(frozen=True)
class TubeMeasures:
    """Measures of the tubes of one label; sizes are in the grid's unit, and radii weigh by length.

    Args:
        value, name: of the label.
        components: number of connected parts.
        segments, branch_points, ends: of all parts.
        loops: number of independent loops.
        length: of all segments.
        length_density: length by the volume of the whole grid, in unit^-2.
        mean_tortuosity: mean over the segments that have one.
        mean_radius, sd_radius: along the length; None without voxels.
        radius_percentiles: at 5, 25, 50, 75 and 95 % of the length; empty without voxels.
    """

    value: int
    name: str
    components: int
    segments: int
    branch_points: int
    ends: int
    loops: int
    length: float
    length_density: float
    mean_tortuosity: float | None
    mean_radius: float | None
    sd_radius: float | None
    radius_percentiles: tuple[float, ...]


def tube_measures(
    value: int, name: str, segments: Sequence[Segment], *, components: int, grid_volume: float
) -> TubeMeasures:
    """Sum up the segments of a label."""
    degrees = Counter(node for segment in segments for node in (segment.start, segment.end))
    # a point alone is a node without a segment
    edges = [segment for segment in segments if len(segment.line.points) > 1]
    length = math.fsum(segment.length for segment in segments)
    bent = [segment.tortuosity for segment in edges if segment.tortuosity is not None]
    mean = sd = None
    percentiles: tuple[float, ...] = ()
    if segments:
        radii = np.concatenate([segment.line.radii for segment in segments])
        weights = np.concatenate([segment.weights for segment in segments])
        weights = weights if weights.any() else np.ones(len(radii))
        mean = _average(radii, weights)
        sd = math.sqrt(_average((radii - mean) ** 2, weights))
        order = np.argsort(radii)
        share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
        percentiles = tuple(float(np.interp(p / 100, share, radii[order])) for p in PERCENTILES)
    return TubeMeasures(
        value,
        name,
        components,
        len(edges),
        sum(degree > 2 for degree in degrees.values()),
        len({node for edge in edges for node in (edge.start, edge.end) if degrees[node] == 1}),
        len(edges) - len(degrees) + components,
        length,
        length / grid_volume,
        math.fsum(bent) / len(bent) if bent else None,
        mean,
        sd,
        percentiles,
    )
