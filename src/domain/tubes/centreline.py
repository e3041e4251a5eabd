"""Centre lines between voxels: moved to the middle of the tube, smoothed, and followed to its ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..labels.comparison import Mask
from .graph import Points

_ROUNDS = 2
_BRANCH_RADII = 2.0  # nearer to a branch point a section is of several branches
_TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False)
class CentreLine:
    """Points ``(n, 3)`` along the middle of a tube, and at each its radius.

    ``radii`` are those of its sections, ``inscribed`` the distances to the nearest voxel outside.
    """

    points: Points
    radii: Points
    inscribed: Points

    def moved(self, offset: Points) -> CentreLine:
        """The same line elsewhere."""
        return CentreLine(self.points + offset, self.radii, self.inscribed)


class Tube:
    """A tube as the voxels of a mask ``(x, y, z)``; places are voxel indices times ``spacing``.

    Beyond the mask's array nothing is known: a tube that ends there has no surface there.
    """

    def __init__(self, mask: Mask, spacing: Sequence[float]) -> None:
        from scipy import ndimage, spatial  # take 0.3 s, and most commands measure nothing

        self._mask = mask
        self.spacing = np.asarray(spacing, float)
        around = ndimage.binary_dilation(mask, np.ones((3, 3, 3), bool)) & ~mask
        outside = np.argwhere(around) * self.spacing
        # a mask that fills its array has no surface: its radius is that of what is known of it
        self._outside = spatial.cKDTree(outside) if len(outside) else None
        self._largest = float((np.array(mask.shape) * self.spacing).max() / 2)

    def radius_at(self, points: Points) -> Points:
        """Return the distance ``(n,)`` of points ``(n, 3)`` from the nearest voxel outside the tube."""
        if self._outside is None:
            return np.full(len(points), self._largest)
        found: Points = np.asarray(self._outside.query(points)[0])
        return found

    def contains(self, points: Points) -> NDArray[np.bool_]:
        """Whether the voxels at points ``(n, 3)`` are in the tube."""
        index = np.rint(points / self.spacing).astype(np.int64)
        known = ((index >= 0) & (index < self._mask.shape)).all(axis=1)
        found = np.zeros(len(points), bool)
        found[known] = self._mask[tuple(index[known].T)]
        return found

    def centre_line(self, points: Points, *, free: tuple[bool, bool], closed: bool) -> CentreLine:
        """Return the centre line near some points.

        ``free``: which ends are ends of the tube, to whose surface the line then goes; the others are branch points.
        ``closed``: the last point is the first.
        """
        inside = self.radius_at(points)
        if len(points) < 2:
            return CentreLine(points, inside, inside)
        radius = float(np.median(inside))
        step = max(float(self.spacing.min()), radius / 2)
        window = 2 * max(radius, float(self.spacing.max()))
        for _ in range(_ROUNDS):
            points = _smooth(_resampled(points, step), window / step, closed=closed)
            centres, _ = self._sections(points, radius, closed=closed)
            if closed:
                points = centres
            else:
                clear = self._clear(points, *(0 if is_free else _BRANCH_RADII for is_free in free))
                kept = np.concatenate([[True], clear[1:-1], [True]])
                points = np.where(clear[:, np.newaxis], centres, points)[kept]
            radius = float(np.median(self.radius_at(points)))
        points = _smooth(_resampled(points, step), window / step, closed=closed)
        _, radii = self._sections(points, radius, closed=closed)
        inside = self.radius_at(points)
        far = _distances(points)
        counted = (
            np.ones(len(points), bool)
            if closed
            else self._clear(points, *(1 if is_free else _BRANCH_RADII for is_free in free))
        )
        if counted.any():
            radii, inside = (np.interp(far, far[counted], values[counted]) for values in (radii, inside))
        line = CentreLine(points, radii, inside)
        for at, is_free in zip((0, -1), free, strict=True):
            if is_free:
                line = self._to_the_surface(line, window, at)
        return line

    def _clear(self, points: Points, first: float, last: float) -> NDArray[np.bool_]:
        """Return which points are farther from each end of a line than so many radii of the tube there."""
        ends = points[[0, -1]]
        far = np.linalg.norm(points[:, np.newaxis] - ends, axis=2)
        clear: NDArray[np.bool_] = (far >= np.array([first, last]) * self.radius_at(ends)).all(axis=1)
        return clear

    def _sections(self, points: Points, radius: float, *, closed: bool) -> tuple[Points, Points]:
        """Return the centres of the sections across a line, and their radii.

        The radius is the median of three: of a circle of the section's area, of the largest circle inside, and midway
        between that and the farthest voxel. Of an ellipse it is the first. Of a circle of few voxels, whose area
        depends on where the voxels lie, it is the nearest to all.
        """
        centres, inside = points.copy(), self.radius_at(points)
        radii = inside.copy()
        along = np.gradient(points, axis=0)
        if closed:
            along[0] = along[-1] = points[1] - points[-2]
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        reach = 2 * radius + float(self.spacing.max())
        most = (radius + float(self.spacing.max())) / 2
        for i, (place, tangent) in enumerate(zip(points, along, strict=True)):
            offsets, weights, thickness = self._section(place, tangent, reach)
            if weights.sum() > 0:
                across = offsets - (offsets @ tangent)[:, np.newaxis] * tangent
                shift = weights @ across / weights.sum()
                centres[i] = place + shift * min(1, most / max(float(np.linalg.norm(shift)), 1e-12))
                of_area = np.sqrt(weights.sum() * self.spacing.prod() / thickness / np.pi)
                farthest = np.linalg.norm(across, axis=1).max()
                radii[i] = np.median([of_area, inside[i], (inside[i] + farthest) / 2])
        if closed:
            centres[-1] = centres[0]
        return centres, radii

    def _section(self, place: Points, tangent: Points, reach: float) -> tuple[Points, Points, float]:
        """Return offsets ``(n, 3)`` and weights ``(n,)`` of the tube's voxels in a slice across it, and its thickness.

        The slice is as thick as a voxel is along the tube, and fades out on both sides. Of other branches that it
        cuts there is nothing.
        """
        from scipy import ndimage

        low = np.maximum(np.ceil((place - reach) / self.spacing), 0).astype(int)
        high = np.minimum(np.floor((place + reach) / self.spacing) + 1, self._mask.shape).astype(int)
        mask = self._mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        x, y, z = (np.arange(a, b) * d - p for a, b, d, p in zip(low, high, self.spacing, place, strict=True))
        depth = x[:, None, None] * tangent[0] + y[:, None] * tangent[1] + z * tangent[2]
        thickness = float(np.abs(tangent) @ self.spacing)
        parts, _ = ndimage.label(mask & (np.abs(depth) < thickness), _TOUCHING)
        index = np.rint(place / self.spacing).astype(int) - low
        own = parts[tuple(index)] if ((index >= 0) & (index < parts.shape)).all() else 0
        if own == 0:
            return np.zeros((0, 3)), np.zeros(0), thickness
        found = parts == own
        return (np.argwhere(found) + low) * self.spacing - place, 1 - np.abs(depth[found]) / thickness, thickness

    def _to_the_surface(self, found: CentreLine, window: float, at: int) -> CentreLine:
        """Follow a line straight on from an end until it leaves the tube.

        Thinning shortens a line by about a radius. The last points bend to corners: the direction is that of those
        before.
        """
        line = found.points if at == -1 else found.points[::-1]
        from_end = _distances(line[::-1])[::-1]
        near = line[from_end <= 2 * window] if from_end[-2] <= 2 * window else line[-2:]
        direction = near[-1] - near[0]
        norm = float(np.linalg.norm(direction))
        if norm == 0:
            return found
        step = float(self.spacing.min()) / 8
        ahead = line[-1] + np.outer(np.arange(1, 1 + int(8 * window / step)) * step, direction / norm)
        inside = self.contains(ahead)
        count = len(inside) if inside.all() else int(np.argmin(inside))
        if count == 0:
            return found
        tip = ahead[count - 1 : count] + step / 2 * direction / norm
        ends = tip, found.radii[[at]], found.inscribed[[at]]
        parts = (found.points, found.radii, found.inscribed)
        joined = (np.concatenate([p, e] if at == -1 else [e, p]) for p, e in zip(parts, ends, strict=True))
        return CentreLine(*joined)


def _distances(points: Points) -> Points:
    """Return how far each point is along a line."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def _resampled(points: Points, step: float) -> Points:
    """Return points at equal distances of about ``step`` along a line."""
    far = _distances(points)
    at = np.linspace(0, far[-1], max(2, round(far[-1] / step) + 1))
    return np.stack([np.interp(at, far, points[:, axis]) for axis in range(3)], axis=1)


def _smooth(points: Points, window: float, *, closed: bool) -> Points:
    """Fit a parabola to the ``window`` points around each (Savitzky and Golay, 1964); open lines keep their ends.

    A parabola follows a bend, where an average would cut it short.
    """
    from scipy import signal  # takes 0.3 s, and most commands measure nothing

    count = len(points) - closed
    width = min(2 * round(window / 2) + 1, count - 1 + count % 2)
    if width < 5:
        return points
    if closed:
        round_trip: Points = signal.savgol_filter(points[:-1], width, 2, axis=0, mode="wrap")
        return np.concatenate([round_trip, round_trip[:1]])
    smoothed: Points = signal.savgol_filter(points, width, 2, axis=0, mode="interp")
    smoothed[[0, -1]] = points[[0, -1]]
    return smoothed
