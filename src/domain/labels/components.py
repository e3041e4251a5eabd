"""Find the connected components of a mask that is streamed slab by slab.

Components are built from runs of consecutive voxels along a line. Typical masks have far fewer runs than voxels: this
takes a sixth of the time of labelling every voxel, which is used for noisy masks. scipy is imported on first use, as it
would delay a run's first tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
_Value = TypeVar("_Value", bound="np.generic[Any]")
# Voxels are connected by their faces, or by faces, edges and corners.
Connectivity = Literal[6, 26]

_VOXELS_AT_ONCE = 2**19
# With fewer voxels per run, labelling every voxel is faster.
_VOXELS_PER_RUN = 12


class ComponentCounter:
    """Counts 26-connected components slab by slab along an axis; keeps the last plane only."""

    def __init__(self, axis: int) -> None:
        self._numbering = _Numbering(axis, 26)
        self._merged = 0

    def add(self, inside: Mask) -> None:
        """Add the next whole planes ``(x, y, z)``."""
        planes = self._numbering.turned(inside)
        thick = max(1, _VOXELS_AT_ONCE // max(1, planes[0].size))
        for start in range(0, len(planes), thick):
            self._merged += len(self._numbering.add(planes[start : start + thick]).merged)

    def result(self) -> int:
        """Return the number of components so far."""
        return self._numbering.made - self._merged


class ComponentMeter:
    """Measures 26-connected components slab by slab along an axis; memory grows with the number of components."""

    def __init__(self, axis: int) -> None:
        self._numbering = _Numbering(axis, 26)
        self._sums = np.zeros((0, 0), np.int64)  # of each number: voxels, the three indices, and each kind of levels
        self._merged: list[Ints] = []
        self._planes = 0

    def add(self, inside: Mask, levels: NDArray[np.uint8]) -> None:
        """Add the next whole planes ``(x, y, z)``, and the levels ``(L, x, y, z)`` of each voxel."""
        planes, values = self._numbering.turned(inside), [self._numbering.turned(kind) for kind in levels]
        thick = max(1, _VOXELS_AT_ONCE // max(1, planes[0].size))
        for start in range(0, len(planes), thick):
            part = slice(start, start + thick)
            runs = self._numbering.add(planes[part])
            if len(runs.starts):
                self._add_runs(runs, [kind[part][planes[part]] for kind in values])
            self._planes += len(planes[part])

    def _add_runs(self, runs: _Runs, levels: Sequence[NDArray[np.uint8]]) -> None:
        """Add runs, and the levels of all their voxels in order."""
        wide, made = self._sums.shape[1], self._numbering.made
        if made > wide:
            self._sums = np.pad(self._sums, ((0, 4 + len(levels) - len(self._sums)), (0, 2 * made - wide)))
        self._merged.append(runs.merged)
        voxels = runs.ends - runs.starts
        begins = np.cumsum(voxels) - voxels
        plane, line, begin = np.unravel_index(runs.starts, runs.shape)
        # less the padding before lines and planes
        indices = (plane + self._planes, line - 1, begin - 1)
        along = voxels * (voxels - 1) // 2
        places = [voxels * index for index in indices]
        places[-1] += along
        sums = (voxels, *places, *(np.add.reduceat(kind, begins, dtype=np.int64) for kind in levels))
        for into, more in zip(self._sums, sums, strict=True):
            np.add.at(into, runs.numbers, more)

    def result(self) -> Pieces:
        """Return the components so far."""
        made = self._numbering.made
        merged = np.concatenate([np.zeros((0, 2), np.int64), *self._merged])
        count, component = _connected(merged[:, 0], merged[:, 1], made)
        sums = np.zeros((max(4, len(self._sums)), count), np.int64)
        for into, more in zip(sums, self._sums[:, :made], strict=bool(made)):
            np.add.at(into, component, more)
        centres = np.empty((count, 3))
        centres[:, self._numbering.axes] = (sums[1:4] / sums[0]).T
        return Pieces(sums[0], sums[4:], centres)


class ComponentTracer:
    """Finds 26-connected components slab by slab along an axis, and those that chosen voxels belong to."""

    def __init__(self, axis: int) -> None:
        self._numbering = _Numbering(axis, 26)
        self._places, self._numbers = [np.zeros((3, 0), np.int64)], [np.zeros(0, np.int64)]
        self._merged = [np.zeros((0, 2), np.int64)]
        self._planes = 0

    def add(self, inside: Mask, chosen: Mask) -> None:
        """Add the next whole planes ``(x, y, z)``, and whether each voxel is chosen if it is inside."""
        planes, of_planes = self._numbering.turned(inside), self._numbering.turned(chosen)
        thick = max(1, _VOXELS_AT_ONCE // max(1, planes[0].size))
        for start in range(0, len(planes), thick):
            part = planes[start : start + thick]
            runs = self._numbering.add(part)
            plane, line, along = np.nonzero(part & of_planes[start : start + thick])
            flat = np.ravel_multi_index((plane, line + 1, along + 1), runs.shape)
            self._numbers.append(runs.numbers[np.searchsorted(runs.starts, flat, side="right") - 1])
            self._places.append(np.stack([plane + self._planes, line, along]))
            self._merged.append(runs.merged)
            self._planes += len(part)

    def result(self) -> tuple[int, Ints, Ints]:
        """Return the number of components, and indices ``(3, N)`` and components (from 0) of the chosen voxels."""
        merged, places = np.concatenate(self._merged), np.concatenate(self._places, axis=1)
        count, component = _connected(merged[:, 0], merged[:, 1], self._numbering.made)
        indices = np.empty_like(places)
        indices[self._numbering.axes] = places
        return count, indices, component[np.concatenate(self._numbers)]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Components: the voxels, the sums of levels ``(L, N)``, and the centre ``(N, 3)`` in voxel indices of each."""

    voxels: Ints
    levels: Ints
    centres: NDArray[np.float64]


class ComponentFinder:
    """Finds the components of a mask in a first pass over its slabs; memory grows with the number of components."""

    def __init__(self, axis: int, connectivity: Connectivity = 26) -> None:
        self._axis, self._connectivity = axis, connectivity
        self._numbering = _Numbering(axis, connectivity)
        self._voxels = np.zeros(0, np.int64)
        self._at_border = np.zeros(0, bool)
        self._merged: list[Ints] = []

    def add(self, inside: Mask) -> None:
        """Add the next whole planes ``(x, y, z)``."""
        for plane in self._numbering.turned(inside):
            is_first = self._numbering.last is None
            runs = self._numbering.add(plane[np.newaxis])
            if (made := self._numbering.made) > len(self._voxels):
                self._voxels.resize(2 * made, refcheck=False)
                self._at_border.resize(2 * made, refcheck=False)
            np.add.at(self._voxels, runs.numbers, runs.ends - runs.starts)
            self._at_border[runs.numbers if is_first else runs.numbers[runs.at_edge()]] = True
            self._merged.append(runs.merged)

    def result(self) -> Components:
        """Return the components. The last plane so far is the end of the mask."""
        self._at_border[self._numbering.last_numbers] = True
        made = self._numbering.made
        merged = np.concatenate([np.zeros((0, 2), np.int64), *self._merged])
        count, component = _connected(merged[:, 0], merged[:, 1], made)
        voxels, at_border = np.zeros(count, np.int64), np.zeros(count, bool)
        np.add.at(voxels, component, self._voxels[:made])
        at_border[component[self._at_border[:made]]] = True
        return Components(self._axis, self._connectivity, voxels, at_border, component)


@dataclass(frozen=True, eq=False)
class Components:
    """Components of a mask: the voxels of each, and whether it has voxels at the border of the volume."""

    axis: int
    connectivity: Connectivity
    voxels: Ints
    at_border: Mask
    of_number: Ints  # the component of each number that a pass over the mask gives

    def selection(self, chosen: Mask) -> Selection:
        """Return a further pass over the mask that selects the components ``chosen``, one flag for each."""
        return Selection(self, chosen)


class Selection:
    """A further pass over a mask: selects the voxels of some of its components. Slabs may have another thickness."""

    def __init__(self, components: Components, chosen: Mask) -> None:
        self._numbering = _Numbering(components.axis, components.connectivity)
        self._chosen = chosen[components.of_number]

    def add(self, inside: Mask) -> Mask:
        """Return the selected voxels of the next whole planes ``(x, y, z)``, which are those of the first pass."""
        selected = np.zeros_like(inside)
        planes = self._numbering.turned(inside)
        for plane, out in zip(planes, self._numbering.turned(selected), strict=True):
            runs = self._numbering.add(plane[np.newaxis])
            out[...] = runs.painted(self._chosen[runs.numbers])[0]
        return selected


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of voxels in padded planes: flat starts and ends (exclusive), the number of each, and pairs that merged."""

    starts: Ints
    ends: Ints
    numbers: Ints
    merged: Ints
    shape: tuple[int, int, int]

    def at_edge(self) -> Mask:
        """Return whether each run has voxels in the first or last line of its plane, or at an end of its line."""
        _, lines, length = self.shape
        line, begin = np.divmod(self.starts, length)
        end = begin + self.ends - self.starts
        line %= lines
        found: Mask = (line == 1) | (line == lines - 1) | (begin == 1) | (end == length)
        return found

    def painted(self, chosen: Mask) -> Mask:
        """Return the planes, without padding, that hold the chosen runs alone."""
        steps = np.zeros(self.shape[0] * self.shape[1] * self.shape[2] + 1, np.int8)
        steps[self.starts[chosen]] = 1
        steps[self.ends[chosen]] = -1
        planes: Mask = np.cumsum(steps[:-1], dtype=np.int8).view(bool).reshape(self.shape)[:, 1:, 1:]
        return planes


class _Numbering:
    """Numbers the runs of consecutive planes by their components; keeps the last plane only.

    Parts of a component that meet in a later plane have different numbers until then, and the lowest from then on.
    ``made`` numbers have been given.
    """

    def __init__(self, axis: int, connectivity: Connectivity) -> None:
        self.made = 0
        self.last: Mask | None = None
        self.last_numbers = np.zeros(0, np.int64)
        self._axis, self._connectivity = axis, connectivity
        self._is_turned: bool | None = None

    def turned(self, inside: NDArray[_Value]) -> NDArray[_Value]:
        """Return a view of planes ``(x, y, z)`` with the planes first, and lines in the order of memory if possible."""
        planes = np.moveaxis(inside, self._axis, 0)
        if self._is_turned is None:
            # Lines follow the order of memory, which is several times faster.
            self._is_turned = abs(planes.strides[1]) < abs(planes.strides[2])
        return planes.transpose(0, 2, 1) if self._is_turned else planes

    @property
    def axes(self) -> list[int]:
        """The axes of the volume in the order of turned planes."""
        first, second = (axis for axis in range(3) if axis != self._axis)
        return [self._axis, second, first] if self._is_turned else [self._axis, first, second]

    def add(self, planes: Mask) -> _Runs:
        """Return the numbered runs of the next planes."""
        seen = 0 if self.last is None else 1
        lines, length = planes.shape[1] + 1, planes.shape[2] + 1
        if not (len(self.last_numbers) or planes.any()):
            self.last = np.zeros((lines, length), bool)
            none = np.zeros(0, np.int64)
            return _Runs(none, none, none, none.reshape(0, 2), (len(planes), lines, length))
        # Padding before each plane and line separates runs that are adjacent in memory alone.
        padded = np.zeros((seen + len(planes), lines, length), bool)
        padded[seen:, 1:, 1:] = planes
        if self.last is not None:
            padded[0] = self.last
        flat = padded.ravel()
        ends = np.flatnonzero(np.append(flat[1:] != flat[:-1], flat[-1:])) + 1
        starts, ends = ends[0::2], ends[1::2]
        pieces, piece = _pieces(padded, starts, ends, self._connectivity)
        # Nodes: the pieces of these planes, then the components that the runs of the previous plane belong to.
        before = len(self.last_numbers)
        opened, position = np.unique(self.last_numbers, return_inverse=True)
        count, component = _connected(piece[:before], pieces + position, pieces + len(opened))
        lowest = np.full(count, -1, np.int64)
        joined = component[pieces:]
        lowest[joined[::-1]] = opened[::-1]  # of several assignments, numpy keeps the last: the lowest number
        is_new = lowest < 0
        fresh = int(is_new.sum())
        lowest[is_new] = self.made + np.arange(fresh)
        self.made += fresh
        merged = np.stack([opened, lowest[joined]], axis=1)
        numbers = lowest[component[piece]]
        plane = lines * length
        self.last = padded[-1].copy()
        self.last_numbers = numbers[starts >= (len(padded) - 1) * plane]
        return _Runs(
            starts[before:] - seen * plane,
            ends[before:] - seen * plane,
            numbers[before:],
            merged[merged[:, 0] != merged[:, 1]],
            (len(planes), lines, length),
        )


def _pieces(mask: Mask, starts: Ints, ends: Ints, connectivity: Connectivity) -> tuple[int, Ints]:
    """Return the number of components of a padded mask, and the component of each run."""
    if len(starts) * _VOXELS_PER_RUN > mask.size:
        from scipy import ndimage

        labels, found = ndimage.label(mask, np.ones((3, 3, 3), bool) if connectivity == 26 else None)
        return int(found), labels.ravel()[starts].astype(np.int64) - 1
    pairs = list(_touching(starts, ends, mask.shape, connectivity))
    one, other = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return _connected(one, other, len(starts))


def _connected(one: Ints, other: Ints, nodes: int) -> tuple[int, Ints]:
    """Return the number of components of a graph with edges ``one`` to ``other``, and the component of each node."""
    from scipy import sparse
    from scipy.sparse import csgraph

    graph = sparse.coo_matrix((np.ones(len(one), bool), (one, other)), shape=(nodes, nodes))
    found, component = csgraph.connected_components(graph, directed=False)
    return int(found), component.astype(np.int64)


def _touching(
    starts: Ints, ends: Ints, shape: tuple[int, ...], connectivity: Connectivity
) -> Iterator[tuple[Ints, Ints]]:
    """Yield the pairs of connected runs, for each direction to a following line."""
    _, lines, length = shape
    diagonal = connectivity == 26
    for away in (1, lines - 1, lines, lines + 1) if diagonal else (1, lines):
        shift = away * length
        # Ends are exclusive: runs that meet at their ends alone are diagonal neighbours.
        first = np.searchsorted(ends, starts + shift, side="left" if diagonal else "right")
        counts = np.searchsorted(starts, ends + shift, side="right" if diagonal else "left") - first
        offsets = np.cumsum(counts) - counts
        one = np.repeat(np.arange(len(starts)), counts)
        yield one, np.arange(len(one)) + np.repeat(first - offsets, counts)
