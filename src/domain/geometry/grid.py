"""Voxel grids: affines, spacing, orientation, reorientation and resampling.

Affines map voxel index ``(i, j, k)`` to world in RAS+ (right, anterior, superior), as in NIfTI. Arrays are indexed
``(x, y, z)``; leading axes (channels, classes) are unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape3 = tuple[int, int, int]
FloatArray = NDArray[np.float64]

UNITS = ("mm", "um", "unknown")
_POSITIVE, _NEGATIVE = "RAS", "LPI"
_UNIT_IN_UM = {"mm": 1000.0, "um": 1.0}
# Assignments of voxel axes to world axes are tied within this difference of cosines.
_TIE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels: ``start <= index < stop`` on each of the three axes."""

    start: Shape3
    stop: Shape3

    @classmethod
    def whole(cls, shape: Shape3) -> Box:
        """Return the box of every voxel of ``shape``."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Shape3:
        """Edge lengths in voxels."""
        return shape3(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box for the last three axes of an array (after an Ellipsis)."""
        a, b = self.start, self.stop
        return slice(a[0], b[0]), slice(a[1], b[1]), slice(a[2], b[2])

    def view(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of the box in an array ``(C, x, y, z)``. Raises ValueError for a box beyond the array."""
        limits = zip(self.start, self.stop, array.shape[1:], strict=True)
        if not all(0 <= start <= stop <= edge for start, stop, edge in limits):
            raise ValueError(f"box: expected one within {array.shape[1:]}, got {self.start} to {self.stop}")
        return array[(slice(None), *self.slices)]

    def with_range(self, axis: int, start: int, stop: int) -> Box:
        """Return the box with another extent along one axis."""
        return Box(_replaced(self.start, axis, start), _replaced(self.stop, axis, stop))

    def moved(self, by: Shape3) -> Box:
        """Return the box moved by some voxels along each axis."""
        return Box(*(shape3(map(sum, zip(corner, by, strict=True))) for corner in (self.start, self.stop)))

    def grown(self, margin: int, shape: Shape3) -> Box:
        """Return the box with ``margin`` more voxels on each side, within a volume of ``shape``."""
        start = shape3(max(0, a - margin) for a in self.start)
        return Box(start, shape3(min(b + margin, edge) for b, edge in zip(self.stop, shape, strict=True)))

    def common(self, other: Box) -> Box | None:
        """Return the voxels that are in both boxes; None if there are none."""
        start = shape3(map(max, self.start, other.start))
        stop = shape3(map(min, self.stop, other.stop))
        return Box(start, stop) if all(a < b for a, b in zip(start, stop, strict=True)) else None

    def around_both(self, other: Box) -> Box:
        """Return the smallest box that holds both boxes."""
        return Box(shape3(map(min, self.start, other.start)), shape3(map(max, self.stop, other.stop)))

    def within(self, outer: Box) -> Box:
        """Return the box in voxels of an outer one: its index in an array of the outer box."""
        return self.moved(shape3(-start for start in outer.start))

    def around(self, shape: Shape3) -> Iterator[Box]:
        """Yield boxes of all the other voxels of a volume of ``shape``, each voxel once."""
        rest = Box.whole(shape)
        for axis in range(3):
            beyond = (rest.start[axis], self.start[axis]), (self.stop[axis], rest.stop[axis])
            yield from (rest.with_range(axis, start, stop) for start, stop in beyond if start < stop)
            rest = rest.with_range(axis, self.start[axis], self.stop[axis])


@dataclass(frozen=True, eq=False)
class Grid:
    """Position of voxels: shape, RAS+ affine ``(4, 4)``, and the unit of lengths (mm, um or unknown)."""

    shape: Shape3
    affine: FloatArray
    unit: str = "unknown"

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not bool(np.isfinite(affine).all()):
            raise ValueError(f"affine: expected a finite (4, 4) matrix, got shape {affine.shape}")
        if np.linalg.matrix_rank(affine[:3, :3]) < 3:
            raise ValueError("affine: expected an invertible matrix, got a singular one")
        if np.shape(self.shape) != (3,) or min(self.shape) < 1:
            raise ValueError(f"shape: expected three positive edges, got {self.shape}")
        if self.unit not in UNITS:
            raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {self.unit}")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", shape3(self.shape))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return (self.shape, self.unit) == (other.shape, other.unit) and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        # + 0.0 turns -0.0 into 0.0, so that equal affines have equal hashes
        return hash((self.shape, self.unit, (self.affine + 0.0).tobytes()))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each array axis, in ``unit``."""
        lengths = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def axis_codes(self) -> str:
        """Anatomical direction (R/L, A/P, S/I) closest to each array axis, e.g. ``"RAS"``."""
        world_axis, sign = _closest_axes(self.affine)
        return "".join((_POSITIVE if s > 0 else _NEGATIVE)[w] for w, s in zip(world_axis, sign, strict=True))

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in ``unit`` cubed, also for sheared grids."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def voxel_count(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def is_sheared(self) -> bool:
        """Whether the array axes are not orthogonal in world space."""
        columns = self.affine[:3, :3] / np.array(self.spacing)
        return bool(np.abs(columns.T @ columns - np.eye(3)).max() > 1e-4)

    def world(self, index: Sequence[float] | FloatArray) -> FloatArray:
        """Return world coordinates (RAS+, in ``unit``) of voxel indices ``(..., 3)``."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def voxels_apart(self, other: Grid) -> float:
        """Return the largest distance between the places of a voxel on two grids of one shape, in voxels of this."""
        return float(np.linalg.norm(self._corners_apart(other), axis=-1).max() / min(self.spacing))

    def difference(self, other: Grid) -> str:
        """Return in words how another grid differs: unit, shape, spacing, rotation in degrees, shift of the centre."""
        parts = [f"unit {other.unit} for {self.unit}"] if self.unit != other.unit else []
        if self.shape != other.shape:
            parts.append(f"{'x'.join(map(str, other.shape))} voxels for {'x'.join(map(str, self.shape))}")
        if not np.allclose(self.spacing, other.spacing, rtol=1e-4, atol=0):
            lengths = (" x ".join(f"{length:.6g}" for length in grid.spacing) for grid in (other, self))
            parts.append("a spacing of {} for {}".format(*lengths))
        mine, theirs = (grid.affine[:3, :3] / np.array(grid.spacing) for grid in (self, other))
        angle = max(_degrees(mine[:, axis], theirs[:, axis]) for axis in range(3))
        if angle > 1e-3:
            parts.append(f"axes turned by {angle:.3g} degrees")
        centres = [grid.world([(n - 1) / 2 for n in grid.shape]) for grid in (self, other)]
        shift = float(np.linalg.norm(centres[0] - centres[1]))
        if shift > 1e-6 * max(self.spacing):
            parts.append(f"a centre {shift:.3g} {self.unit if self.unit != 'unknown' else 'units'} away")
        return ", ".join(parts) or "nothing"

    def same_space(self, other: Grid) -> bool:
        """Return whether both grids place each voxel at the same position, within 1e-3 of a voxel."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self._corners_apart(other)).max() <= 1e-3 * min(self.spacing))

    def _corners_apart(self, other: Grid) -> FloatArray:
        corners = np.array(list(product(*((0, n - 1) for n in self.shape))), dtype=np.float64)
        return self.world(corners) - other.world(corners)

    def reorientation_to(self, codes: str) -> Reorientation:
        """Return the axis permutation and flips from this grid to ``codes`` (e.g. ``"RAS"``)."""
        world_axis, sign = _closest_axes(self.affine)
        axes, flips = [], []
        for code in check_codes(codes):
            wanted = (_POSITIVE.find(code) + 1 or _NEGATIVE.find(code) + 1) - 1
            source = world_axis.index(wanted)
            axes.append(source)
            flips.append((sign[source] > 0) != (code in _POSITIVE))
        return Reorientation(shape3(axes), (flips[0], flips[1], flips[2]))

    def part(self, box: Box) -> Grid:
        """Return the grid of the voxels in ``box``."""
        affine = self.affine.copy()
        affine[:3, 3] = self.world(box.start)
        return Grid(box.shape, affine, self.unit)

    def resampled(self, shape: Shape3, ratio: Sequence[float], first: Sequence[float]) -> Grid:
        """Return a grid with parallel axes.

        ``ratio``: its spacing over this grid's. ``first``: the place of its first voxel, in voxels of this grid.
        """
        index_map = np.eye(4)
        index_map[:3, :3] = np.diag(ratio)
        index_map[:3, 3] = first
        return Grid(shape, self.affine @ index_map, self.unit)


@dataclass(frozen=True)
class Reorientation:
    """A lossless change of axis order: new axis ``i`` is old axis ``axes[i]``, reversed where ``flips[i]``."""

    axes: Shape3
    flips: tuple[bool, bool, bool]

    @classmethod
    def identity(cls) -> Reorientation:
        """Return the reorientation that changes nothing."""
        return cls((0, 1, 2), (False, False, False))

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of ``array`` ``(..., x, y, z)`` with its last three axes in the new order."""
        lead = array.ndim - 3
        moved = np.transpose(array, (*range(lead), *(lead + a for a in self.axes)))
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        index: tuple[Any, ...] = (Ellipsis, *steps)
        flipped: NDArray[Any] = moved[index]
        return flipped

    def apply_shape(self, shape: Shape3) -> Shape3:
        """Return a shape in the new order."""
        return shape3(shape[a] for a in self.axes)

    def apply_grid(self, grid: Grid) -> Grid:
        """Return the grid of a reoriented array; every voxel keeps its world position."""
        index_map = np.zeros((4, 4))
        index_map[3, 3] = 1.0
        for new, (old, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            index_map[old, new] = -1.0 if flip else 1.0
            index_map[old, 3] = grid.shape[old] - 1 if flip else 0.0
        return Grid(self.apply_shape(grid.shape), grid.affine @ index_map, grid.unit)

    def inverse(self) -> Reorientation:
        """Return the inverse reorientation."""
        axes = [self.axes.index(old) for old in range(3)]
        return Reorientation(shape3(axes), (self.flips[axes[0]], self.flips[axes[1]], self.flips[axes[2]]))

    def source_box(self, box: Box, source_shape: Shape3) -> Box:
        """Return the box in the old order for a ``box`` in the new order."""
        start, stop = [0, 0, 0], [0, 0, 0]
        for new, (old, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            edge, a, b = source_shape[old], box.start[new], box.stop[new]
            start[old], stop[old] = (edge - b, edge - a) if flip else (a, b)
        return Box(shape3(start), shape3(stop))


def shape3(values: Any) -> Shape3:
    """Return three integers as a tuple."""
    x, y, z = (int(v) for v in values)
    return x, y, z


def check_codes(codes: str) -> str:
    """Return ``codes`` if it names each anatomical axis once. Raises ValueError otherwise."""
    axes = sorted((_POSITIVE.find(c) + 1 or _NEGATIVE.find(c) + 1) for c in codes)
    if axes != [1, 2, 3]:
        raise ValueError(f"orientation: expected axis codes such as RAS or LIA, got {codes}")
    return codes


def unit_factor(source: str, target: str) -> float:
    """Return the factor from ``source`` to ``target`` units; 1 if one is unknown."""
    if "unknown" in (source, target):
        return 1.0
    return _UNIT_IN_UM[source] / _UNIT_IN_UM[target]


def _degrees(one: FloatArray, other: FloatArray) -> float:
    """Return the angle between two vectors of length one; exact for small ones, as arccos is not."""
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(one - other), np.linalg.norm(one + other))))


def _closest_axes(affine: FloatArray) -> tuple[list[int], list[int]]:
    """Return world axis and sign for each array axis, maximising the summed cosines over six assignments.

    Ties (rotations by exactly 45 degrees) are decided by the directions, never by the storage order of axes, so all 48
    orders of a volume reorient to the same array.
    """
    columns = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    cosines = np.abs(columns)
    orders = [shape3(p) for p in permutations(range(3))]
    infer = {p: sum(cosines[w, j] for j, w in enumerate(p)) for p in orders}
    best = max(infer.values())
    tied = [p for p in orders if infer[p] >= best - _TIE_TOLERANCE]
    order = max(tied, key=lambda p: _direction_key(columns, p))
    return list(order), [1 if columns[w, j] >= 0 else -1 for j, w in enumerate(order)]


def _direction_key(columns: FloatArray, order: Shape3) -> tuple[float, ...]:
    key: list[float] = []
    for world in range(3):
        direction = np.round(columns[:, order.index(world)], 5)
        leading = direction[np.flatnonzero(direction)[0]]
        key.extend((direction if leading > 0 else -direction).tolist())
    return tuple(key)


def _replaced(values: Shape3, position: int, value: int) -> Shape3:
    return shape3(value if i == position else v for i, v in enumerate(values))
