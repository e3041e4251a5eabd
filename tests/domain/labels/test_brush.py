"""A stroke paints the voxels within a radius, no more and no less."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.errors import UsageError
from voxport.domain.geometry.grid import Box, Grid, Shape3
from voxport.domain.labels.brush import MOST_POINTS, Stroke
from voxport.domain.labels.label_map import Label, LabelTable

TABLE = LabelTable((Label(1, "vessel"), Label(3, "cell")))
SHAPE = (13, 11, 9)
points = st.tuples(*(st.integers(0, n - 1) for n in SHAPE))


def painted(stroke: Stroke, grid: Grid) -> np.ndarray:
    box, inside = stroke.voxels(grid, TABLE)
    whole = np.zeros(grid.shape, bool)
    whole[box.slices] = inside
    return whole


def test_a_ball_is_an_ellipsoid_of_voxels() -> None:
    grid = Grid(SHAPE, np.diag([0.5, 1.0, 2.0, 1.0]), "mm")
    x, y, z = np.indices(SHAPE)
    expected = ((x - 6) * 0.5) ** 2 + (y - 5) ** 2 + ((z - 4) * 2.0) ** 2 <= 2.0**2
    np.testing.assert_array_equal(painted(Stroke(1, 2.0, ((6, 5, 4),)), grid), expected)
    assert [bool(expected[at]) for at in ((2, 5, 4), (6, 3, 4), (6, 5, 3))] == [True] * 3  # at the radius exactly


def test_a_radius_of_rounded_spacings_reaches_its_end() -> None:
    grid = Grid(SHAPE, np.diag([0.1, 0.1, 0.1, 1.0]))
    whole = painted(Stroke(1, 0.3, ((6, 5, 4),)), grid)
    assert [int(np.flatnonzero(line).size) for line in (whole[:, 5, 4], whole[6, :, 4], whole[6, 5, :])] == [7, 7, 7]


@given(st.lists(points, min_size=1, max_size=4), st.floats(0, 6), st.integers(0, 2**32 - 1))
def test_the_nearest_point_decides_on_any_grid(places: list[Shape3], radius: float, seed: int) -> None:
    """Also where axes are oblique or sheared: each voxel is compared with the distance in world coordinates."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([1.0, 0.7, 1.9]) + np.random.default_rng(seed).uniform(-0.2, 0.2, (3, 3))
    grid = Grid(SHAPE, affine)
    whole = painted(Stroke(3, radius, tuple(places)), grid)
    for voxel in product(*map(range, SHAPE)):
        distance = min(math.dist(grid.world(voxel), grid.world(point)) for point in places)
        if abs(distance - radius) > 1e-6:
            assert whole[voxel] == (distance < radius), (voxel, distance)


@given(points, st.floats(0, 20))
def test_the_box_is_within_the_grid_and_holds_the_point(point: Shape3, radius: float) -> None:
    box, inside = Stroke(0, radius, (point,)).voxels(Grid(SHAPE, np.eye(4)), TABLE)
    assert box.common(Box.whole(SHAPE)) == box
    assert inside[tuple(np.subtract(point, box.start))]


@pytest.mark.parametrize(
    "stroke",
    [
        Stroke(2, 1.0, ((0, 0, 0),)),
        Stroke(-1, 1.0, ((0, 0, 0),)),
        Stroke(1, math.nan, ((0, 0, 0),)),
        Stroke(1, 1e300, ((0, 0, 0),)),
        Stroke(1, math.inf, ((0, 0, 0),)),
        Stroke(1, -1.0, ((0, 0, 0),)),
        Stroke(1, 1.0, ()),
        Stroke(1, 1.0, ((0, 0, 0),) * (MOST_POINTS + 1)),
        Stroke(1, 1.0, ((0, 0, 9),)),
        Stroke(1, 1.0, ((-1, 0, 0),)),
    ],
)
def test_a_wrong_stroke_is_refused(stroke: Stroke) -> None:
    with pytest.raises(UsageError) as refused:
        stroke.voxels(Grid(SHAPE, np.eye(4)), TABLE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("stroke", [Stroke(1, 1e9, ((5, 5, 5),)), Stroke(1, 300.0, ((0, 0, 0), (999, 999, 999)))])
def test_more_than_may_be_painted_at_once_is_refused_before_any_memory_is_taken(stroke: Stroke) -> None:
    with pytest.raises(UsageError, match="16777216 voxels"):
        stroke.voxels(Grid((1000, 1000, 1000), np.eye(4)), TABLE)
