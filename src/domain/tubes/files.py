"""Measures of tubes as tables, and their centre lines as SWC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..geometry.grid import Grid
from ..labels.statistics_file import table_bytes
from .measures import PERCENTILES, Segment, TubeMeasures

LABELS, SEGMENTS = "labels.csv", "segments.csv"


def label_rows(measures: Sequence[TubeMeasures], unit: str) -> list[dict[str, Any]]:
    """A row a label."""
    rows = []
    for found in measures:
        row = asdict(found) | {"unit": unit}
        values = row.pop("radius_percentiles") or [None] * len(PERCENTILES)
        rows.append(row | {f"radius_p{p:02d}": value for p, value in zip(PERCENTILES, values, strict=True)})
    return rows


def segment_rows(value: int, segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """A row a segment of a label; a point alone is none."""
    names = ("component", "start", "end", "length", "distance", "tortuosity", "radius", "inscribed_radius")
    return [
        {"label": value, "segment": number}
        | {name: getattr(segment, name) for name in names}
        | {"least_radius": float(segment.line.radii.min()), "largest_radius": float(segment.line.radii.max())}
        for number, segment in enumerate((s for s in segments if len(s.line.points) > 1), 1)
    ]


def tube_files(
    measures: Sequence[TubeMeasures], segments: Mapping[int, Sequence[Segment]], grid: Grid
) -> dict[str, bytes]:
    """Return the files of a mask's tubes by name: a table of labels, one of segments, and ``VALUE.swc`` a label."""
    rows = [row for value, found in segments.items() for row in segment_rows(value, found)]
    return {
        LABELS: table_bytes(label_rows(measures, grid.unit)),
        SEGMENTS: table_bytes(rows, "label"),
        **{f"{value}.swc": swc_bytes(found, grid) for value, found in segments.items() if found},
    }


def swc_bytes(segments: Sequence[Segment], grid: Grid) -> bytes:
    """Return centre lines as SWC (Cannon et al., 1998): places in the world (RAS+) and radii, in the grid's unit.

    SWC has trees only. Where segments close a loop, the last one ends beside the node that it leads to.
    """
    lines = [f"# x, y, z in the world (RAS+) and radii in {grid.unit}", "# id type x y z radius parent"]
    for number, (parent, place, radius) in enumerate(_points(segments), 1):
        world = grid.affine[:3, :3] @ (place / np.array(grid.spacing)) + grid.affine[:3, 3]
        at = " ".join(f"{value:.6g}" for value in (*world, radius))
        lines.append(f"{number} 0 {at} {parent}")
    return ("\n".join(lines) + "\n").encode()


def _points(segments: Sequence[Segment]) -> Iterator[tuple[int, Any, float]]:
    """Yield parent, place and radius of each point, parents first; -1 is no parent."""
    at: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        at[segment.start].append(segment)
        at[segment.end].append(segment)
    number: dict[int, int] = {}
    count, done = 0, set()
    for root in at:
        if root in number:
            continue
        queue = [root]
        for node in queue:  # which grows
            for segment in at[node]:
                if id(segment) in done:
                    continue
                done.add(id(segment))
                turned = segment.start != node
                points = segment.line.points[::-1] if turned else segment.line.points
                radii = segment.line.radii[::-1] if turned else segment.line.radii
                other = segment.start if turned else segment.end
                if node not in number:
                    count += 1
                    number[node] = count
                    yield -1, points[0], float(radii[0])
                parent = number[node]
                for place, radius in zip(points[1:], radii[1:], strict=True):
                    count += 1
                    yield parent, place, float(radius)
                    parent = count
                if other not in number:
                    number[other] = count
                    queue.append(other)
