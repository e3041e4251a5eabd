"""From the stored grid to the network's space and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.cards.model_card import Channel, Input, ResamplingRule
from voxport.domain.geometry.grid import Grid, Reorientation, Shape3
from voxport.domain.geometry.model_space import ModelSpace, coarse_axis
from voxport.testing.strategies import grids, orientation_codes

CHANNELS = (Channel("t1", 0),)


@given(grids(sheared=True), orientation_codes())
def test_a_card_with_an_orientation_gets_it_and_nothing_is_interpolated(grid: Grid, codes: str) -> None:
    space = ModelSpace.of(grid, Input(CHANNELS, orientation=codes))
    assert space.stored is grid
    assert space.grid == space.oriented == space.reorientation.apply_grid(grid)
    assert space.grid.axis_codes == codes
    assert not space.resamples


@given(grids(sheared=True))
def test_without_an_orientation_the_array_stays_as_stored(grid: Grid) -> None:
    space = ModelSpace.of(grid, Input(CHANNELS, orientation=None))
    assert space.reorientation == Reorientation.identity()
    assert space.grid == grid


@given(grids(max_edge=20), st.tuples(*[st.floats(0.1, 8)] * 3))
def test_spacing_in_the_cards_unit_becomes_the_grids(grid: Grid, spacing: tuple[float, float, float]) -> None:
    space = ModelSpace.of(grid, Input(CHANNELS, orientation="RAS", spacing=spacing, spacing_unit="um"))
    factor = {"mm": 1e-3, "um": 1.0, "unknown": 1.0}[grid.unit]
    np.testing.assert_allclose(space.grid.spacing, np.multiply(spacing, factor), rtol=1e-4)
    assert space.grid.axis_codes == "RAS"
    assert (space.resampling.source, space.resampling.target) == (space.oriented.shape, space.grid.shape)
    assert space.grid.unit == grid.unit
    ratio = np.divide(space.grid.spacing, space.oriented.spacing)
    np.testing.assert_allclose(space.resampling.ratio, ratio, rtol=2e-5)


def test_spacing_is_along_the_networks_axes_and_not_the_stored_ones() -> None:
    stored = Grid((4, 6, 8), np.array([[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]), "mm")
    space = ModelSpace.of(stored, Input(CHANNELS, orientation="RAS", spacing=(2, 1, 0.5), spacing_unit="mm"))
    assert space.oriented.shape == (8, 6, 4)
    assert space.grid.shape == (4, 6, 8)
    assert space.resampling.ratio == (2.0, 1.0, 0.5)
    assert space.resamples


@pytest.mark.parametrize(("relative", "resamples"), [(0.0, False), (9e-6, False), (-9e-6, False), (2e-5, True)])
def test_a_spacing_that_differs_by_rounding_only_is_not_interpolated(relative: float, resamples: bool) -> None:
    spacing = (0.7, 0.7, 3.0 * (1 + relative))
    grid = Grid((40, 40, 9), np.diag([0.7, 0.7, 3.0, 1.0]), "mm")
    space = ModelSpace.of(grid, Input(CHANNELS, spacing=spacing, spacing_unit="mm"))
    assert space.resamples is resamples
    assert (space.grid == space.oriented) is not resamples


@given(grids(), orientation_codes(), st.integers(0, 2))
def test_model_axis_is_the_one_along_which_a_stored_axis_runs(grid: Grid, codes: str, axis: int) -> None:
    space = ModelSpace.of(grid, Input(CHANNELS, orientation=codes))
    step = grid.affine[:3, axis]
    model_step = space.grid.affine[:3, space.model_axis(axis)]
    np.testing.assert_allclose(np.abs(step @ model_step), step @ step)


@given(grids(max_edge=12), orientation_codes())
def test_volumes_of_every_storage_order_get_the_same_space(grid: Grid, codes: str) -> None:
    wanted = Input(CHANNELS, orientation=codes, spacing=(1.0, 2.0, 0.5), spacing_unit="mm")
    expected = ModelSpace.of(grid, wanted)
    turned = Reorientation((2, 0, 1), (True, False, True)).apply_grid(grid)
    found = ModelSpace.of(turned, wanted)
    assert found.resampling == expected.resampling
    assert found.grid.same_space(expected.grid)


# Which points of the two grids coincide


def space_of(grid: Grid, spacing: Sequence[float], **rule: Any) -> ModelSpace:
    x, y, z = spacing
    unit = "mm" if grid.unit == "unknown" else grid.unit
    return ModelSpace.of(grid, Input(CHANNELS, "XYZ", None, (x, y, z), unit, resampling=ResamplingRule(**rule)))


def times(values: Sequence[float], factors: Sequence[float]) -> list[float]:
    return [v * f for v, f in zip(values, factors, strict=True)]


def diagonal(shape: Shape3, *spacing: float) -> Grid:
    return Grid(shape, np.diag([*spacing, 1.0]), "mm")


ratios = st.tuples(*[st.floats(0.2, 6.0)] * 3)


@given(grids(max_edge=40, sheared=True), ratios, st.sampled_from(["centre", "extent"]))
def test_centre_directions_and_field_of_view_are_kept(
    grid: Grid, ratio: tuple[float, float, float], align: str
) -> None:
    new = space_of(grid, times(grid.spacing, ratio), align=align).grid
    centre, new_centre = (g.world((np.array(g.shape) - 1) / 2) for g in (grid, new))
    np.testing.assert_allclose(new_centre, centre, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        new.affine[:3, :3] / np.array(new.spacing), grid.affine[:3, :3] / np.array(grid.spacing), rtol=0, atol=1e-12
    )
    for edge, old_edge, r in zip(new.shape, grid.shape, ratio, strict=True):
        assert edge == 1 or abs(edge * r - old_edge) <= r / 2 + 1e-9  # at most half a new voxel off
    if align == "centre":
        np.testing.assert_allclose(new.spacing, times(grid.spacing, ratio), rtol=2e-5)
    else:
        np.testing.assert_allclose(times(new.spacing, new.shape), times(grid.spacing, grid.shape), rtol=1e-12)


def test_doubling_the_resolution_doubles_the_edges() -> None:
    new = space_of(diagonal((5, 6, 7), 1, 2, 3), (0.5, 2, 1.5)).grid
    assert new.shape == (10, 6, 14)
    np.testing.assert_allclose(new.world((0, 0, 0)), (-0.25, 0, -0.75))


@pytest.mark.parametrize("align", ["centre", "extent", "first"])
def test_a_grid_never_resamples_to_nothing(align: str) -> None:
    assert space_of(diagonal((1, 2, 3), 1, 1, 1), (100, 100, 100), align=align).grid.shape == (1, 1, 1)


@given(grids(max_edge=40), ratios)
def test_with_one_extent_equal_shapes_are_not_interpolated(grid: Grid, ratio: tuple[float, float, float]) -> None:
    space = space_of(grid, times(grid.spacing, ratio), align="extent")
    for old, new, found in zip(grid.shape, space.grid.shape, space.resampling.ratio, strict=True):
        assert found == old / new
    assert space.resamples is (grid.shape != space.grid.shape)
    assert (space.back.source, space.back.target) == (space.grid.shape, grid.shape)


def test_the_first_voxels_coincide_as_in_monai() -> None:
    space = space_of(diagonal((10, 11, 12), 1, 2, 3), (1.5, 2.0009, 2), align="first")
    assert space.grid.shape == (7, 11, 18)  # 9 / 1.5 + 1; kept within 0.001; 33 / 2 + 1 = 17.5, to even
    assert space.resampling.ratio == (1.5, 1.0, 2 / 3)
    np.testing.assert_array_equal(space.grid.world((0, 0, 0)), (0, 0, 0))
    np.testing.assert_allclose(space.grid.spacing, (1.5, 2, 2))


# The axis that takes the nearest voxel


@pytest.mark.parametrize(
    ("spacings", "expected"),
    [
        ([(1, 1, 3), (1, 1, 1)], None),  # not more than three times
        ([(1, 1, 3.1), (1, 1, 1)], 2),
        ([(5, 1, 1), (1, 1, 5)], 0),  # the first anisotropic one decides
        ([(1, 1, 1), (1, 5, 1)], 1),
        ([(0.2, 1, 1), (1, 1, 5)], None),  # two coarse axes
        ([(0.2, 1, 1 + 1e-9), (1, 1, 5)], None),
    ],
)
def test_the_coarse_axis_is_the_one_that_nnunet_takes_apart(
    spacings: list[tuple[float, float, float]], expected: int | None
) -> None:
    assert coarse_axis(*spacings) == expected


def test_the_coarse_axis_is_apart_on_the_way_back_as_well_and_only_if_the_card_says_so() -> None:
    grid = diagonal((20, 20, 8), 1, 1, 4)
    space = space_of(grid, (0.8, 0.8, 2), order=3, separate_axis="auto", align="extent")
    assert (space.resampling.order, space.resampling.separate) == (3, 2)
    assert (space.back.order, space.back.separate) == (1, 2)
    assert space_of(grid, (0.8, 0.8, 2), order=3, align="extent").resampling.separate is None
