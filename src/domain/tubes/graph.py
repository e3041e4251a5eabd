"""The graph of a tube's centre lines: branch points, ends, and the lines between them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
RadiusAt = Callable[[Points], Points]
_MARGIN = 1.5  # what the radius of the tube explains, and half as much for rough surfaces


@dataclass(eq=False)
class Line:
    """Points ``(n, 3)`` from one node to another; a closed line begins and ends at the same one."""

    start: int
    end: int
    points: Points

    @property
    def length(self) -> float:
        """Sum of the distances between successive points."""
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())

    def turned(self) -> Line:
        """The same line from its end."""
        return Line(self.end, self.start, self.points[::-1])


def tube_graph(paths: Sequence[Points], radius_at: RadiusAt) -> list[Line]:
    """Return the lines of a tube, from the paths of its thinned mask.

    Thinning leaves more than a tube has. What the tube's own radius explains goes: lines between branch points inside
    one cross-section, loops too short to go around anything, and side lines that do not leave the tube. Lines that
    meet two by two are joined.

    Args:
        paths: each ``(n, 3)``, in a unit; equal first or last points are one node.
        radius_at: radii of the tube at points ``(n, 3)``, in the same unit.
    """
    names: dict[tuple[float, ...], int] = {}
    lines = []
    for path in paths:
        start, end = (names.setdefault(tuple(path[at].tolist()), len(names)) for at in (0, -1))
        lines.append(Line(start, end, path.astype(float)))
    lines = _merged(lines, radius_at)
    while True:
        lines = _joined(lines)
        kept = _without_spurs(_without_loops(lines, radius_at), radius_at)
        if len(kept) == len(lines):
            return lines
        lines = kept


def _by_node(lines: Sequence[Line]) -> dict[int, list[Line]]:
    """The lines at each node; a closed line counts twice."""
    found: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        found[line.start].append(line)
        found[line.end].append(line)
    return found


def _merged(lines: Sequence[Line], radius_at: RadiusAt) -> list[Line]:
    """Make one node of branch points that are nearer to each other than the tube is thick."""
    at = _by_node(lines)
    parent = {node: node for node in at}

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    left = []
    for line in sorted(lines, key=lambda line: line.length):
        inside = min(len(at[line.start]), len(at[line.end])) > 2 and line.length <= radius_at(line.points).max()
        if inside and root(line.start) != root(line.end):
            parent[root(line.start)] = root(line.end)
        else:
            left.append(line)
    groups: dict[int, list[Points]] = defaultdict(list)
    for line in lines:
        groups[root(line.start)].append(line.points[0])
        groups[root(line.end)].append(line.points[-1])
    centres = {node: np.mean(np.unique(points, axis=0), axis=0) for node, points in groups.items()}
    moved = []
    for line in left:
        start, end = root(line.start), root(line.end)
        points = line.points
        if (points[0] != centres[start]).any():
            points = np.concatenate([centres[start][np.newaxis], points])
        if (points[-1] != centres[end]).any():
            points = np.concatenate([points, centres[end][np.newaxis]])
        moved.append(Line(start, end, points))
    return moved


def _without_loops(lines: Sequence[Line], radius_at: RadiusAt) -> list[Line]:
    """Drop loops that are shorter than the circumference of the tube: there is no hole that they go around."""
    kept: list[Line] = []
    between: dict[tuple[int, int], list[Line]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: line.length):
        ends = min(line.start, line.end), max(line.start, line.end)
        others = [0.0] if line.start == line.end else [other.length for other in between[ends]]
        limit = _MARGIN * 2 * math.pi * float(radius_at(line.points).max())
        if len(line.points) > 1 and any(line.length + other <= limit for other in others) and len(lines) > 1:
            continue
        between[ends].append(line)
        kept.append(line)
    return kept


def _without_spurs(lines: Sequence[Line], radius_at: RadiusAt) -> list[Line]:
    """Drop side lines that end inside the tube that they leave; the longest of those at the end of a tube stays."""
    at = _by_node(lines)
    degree = {node: len(met) for node, met in at.items()}
    dropped = set()
    for line in sorted(lines, key=lambda line: line.length):
        if line.start == line.end or 1 not in (degree[line.start], degree[line.end]):
            continue
        turned = line if degree[line.end] == 1 else line.turned()
        if degree[turned.start] <= 2:
            continue
        longest = max(at[turned.start], key=lambda line: line.length)
        thick = max(radius_at(turned.points[:1])[0], float(np.median(radius_at(longest.points))))
        if line is not longest and line.length <= _MARGIN * thick:
            dropped.add(id(line))
            degree[turned.start] -= 1
            degree[turned.end] -= 1
    return [line for line in lines if id(line) not in dropped]


def _joined(lines: Sequence[Line]) -> list[Line]:
    """Make one line of two that alone meet at a node."""
    at = _by_node(lines)
    left = {id(line): line for line in lines}
    for node, met in at.items():
        if len(met) != 2 or met[0] is met[1]:
            continue
        first = met[0] if met[0].end == node else met[0].turned()
        second = met[1] if met[1].start == node else met[1].turned()
        whole = Line(first.start, second.end, np.concatenate([first.points, second.points[1:]]))
        for line in met:
            del left[id(line)]
        left[id(whole)] = whole
        for end, old in ((whole.start, met[0]), (whole.end, met[1])):
            at[end] = [whole if line is old else line for line in at[end]]
    return list(left.values())
