"""From the stored grid to the network's space and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.cards.model_card import Channel, Input
from voxport.domain.geometry.grid import Grid, Reorientation
from voxport.domain.geometry.model_space import ModelSpace
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
