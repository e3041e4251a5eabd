"""The graph of a tube: what its radius explains is no branch, and everything else is one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.geometry.grid import Grid
from voxport.domain.tubes.centreline import CentreLine
from voxport.domain.tubes.files import segment_rows, swc_bytes
from voxport.domain.tubes.graph import Line, Points, tube_graph
from voxport.domain.tubes.measures import Segment, tube_measures


def path(*corners: Sequence[float]) -> Points:
    """A path of steps of 1 or less through some places."""
    found = [np.array(corners[:1], float)]
    for start, end in pairwise(corners):
        count = max(1, math.ceil(np.linalg.norm(np.subtract(end, start))))
        found.append(np.linspace(start, end, count + 1)[1:])
    return np.concatenate(found)


def graph(*paths: Points, radius: float = 2.0) -> list[Line]:
    return tube_graph(paths, lambda points: np.full(len(points), radius))


def ends(lines: Sequence[Line]) -> Counter[int]:
    """How many nodes there are of each degree."""
    return Counter(Counter(node for line in lines for node in (line.start, line.end)).values())


@given(st.permutations(range(3)), st.lists(st.booleans(), min_size=3, max_size=3))
def test_pieces_of_one_line_in_any_order_and_direction_are_one(order: list[int], turns: list[bool]) -> None:
    pieces = [path((0, 0, 0), (5, 0, 0)), path((5, 0, 0), (9, 4, 0)), path((9, 4, 0), (9, 4, 12))]
    (line,) = graph(*(pieces[i][::-1] if turn else pieces[i] for i, turn in zip(order, turns, strict=True)))
    assert line.length == pytest.approx(5 + math.hypot(4, 4) + 12)
    assert sorted([line.points[0].tolist(), line.points[-1].tolist()]) == [[0, 0, 0], [9, 4, 12]]


def test_side_lines_count_from_one_and_a_half_radii_on() -> None:
    trunk = path((0, 0, 0), (20, 0, 0)), path((20, 0, 0), (40, 0, 0))
    assert len(graph(*trunk, path((20, 0, 0), (20, 3, 0)))) == 1
    assert ends(graph(*trunk, path((20, 0, 0), (20, 3.1, 0)))) == {1: 3, 3: 1}


def test_of_a_forked_tip_the_longer_prong_stays() -> None:
    (line,) = graph(path((0, 0, 0), (20, 0, 0)), path((20, 0, 0), (21, 1, 0)), path((20, 0, 0), (22, -2, 0)))
    assert line.length == pytest.approx(20 + math.hypot(2, 2))


def test_branch_points_inside_one_section_are_one() -> None:
    arms = (
        path((0, 0, 0), (-9, 0, 0)),
        path((0, 0, 0), (0, 9, 0)),
        path((1.5, 0, 0), (9, 0, 0)),
        path((1.5, 0, 0), (1.5, -9, 0)),
    )
    assert ends(graph(*arms, path((0, 0, 0), (1.5, 0, 0)))) == {1: 4, 4: 1}
    apart = [arms[0], arms[1], *(np.add(arm, [2, 0, 0]) for arm in arms[2:]), path((0, 0, 0), (3.5, 0, 0))]
    assert ends(graph(*apart)) == {1: 4, 3: 2}


def test_a_loop_counts_where_there_is_room_for_a_hole() -> None:
    turn = np.linspace(0, 2 * np.pi, 40)
    for large, loops in ((1.5, 0), (4.0, 1)):
        ring = np.stack([large * np.cos(turn), large * np.sin(turn), 0 * turn], axis=1)
        ring[-1] = ring[0]
        lines = graph(ring, path((large, 0, 0), (large + 20, 0, 0)), path((large, 0, 0), (large, 0, 20)))
        assert sum(line.start == line.end for line in lines) == loops


def test_a_ring_alone_and_a_voxel_alone_stay() -> None:
    (ring,) = graph(path((0, 0, 0), (9, 0, 0), (9, 9, 0), (0, 0, 0)))
    assert ring.start == ring.end
    (voxel,) = graph(np.array([[3.0, 4.0, 5.0]]))
    assert voxel.points.tolist() == [[3, 4, 5]]
    assert graph() == []


def segment(start: int, end: int, points: Sequence[Sequence[float]], radii: Sequence[float]) -> Segment:
    return Segment(1, start, end, CentreLine(np.array(points, float), np.array(radii, float), np.array(radii, float)))


def test_measures_weigh_by_length() -> None:
    bent = segment(1, 2, [(0, 0, 0), (3, 0, 0), (3, 4, 0)], [1.0, 1.0, 3.0])
    assert (bent.length, bent.distance, bent.tortuosity) == (7, 5, 1.4)
    assert bent.radius == pytest.approx((3 * 1 + 4 * 2) / 7)
    alone = segment(3, 3, [(9, 9, 9)], [2.0])
    found = tube_measures(1, "vessel", [bent, alone], components=2, grid_volume=70.0)
    assert (found.segments, found.ends, found.branch_points, found.loops) == (1, 2, 0, 0)
    assert (found.length, found.length_density, found.mean_tortuosity) == (7, 0.1, 1.4)
    assert found.radius_percentiles[0] == 1.0
    assert [row["start"] for row in segment_rows(1, [alone, bent])] == [1]


def test_a_loop_in_swc_is_cut_beside_the_node_that_it_closes_at() -> None:
    triangle = [
        segment(1, 2, [(0, 0, 0), (2, 0, 0), (4, 0, 0)], [1, 1, 1]),
        segment(2, 3, [(4, 0, 0), (4, 4, 0)], [1, 1]),
        segment(1, 3, [(0, 0, 0), (4, 4, 0)], [1, 1]),
    ]
    grid = Grid((9, 9, 9), np.diag([-1.0, 1.0, 1.0, 1.0]), "um")
    rows = [line.split() for line in swc_bytes(triangle, grid).decode().splitlines() if not line.startswith("#")]
    assert [row[-1] for row in rows] == ["-1", "1", "2", "1", "3"]
    assert len(rows) == 1 + 2 + 1 + 1
    assert ["-4", "4", "0"] in [row[2:5] for row in rows]
