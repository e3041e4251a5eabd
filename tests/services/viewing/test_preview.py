"""The preview shows three planes through the largest label, bare above and overlaid below."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.geometry.grid import Box, Grid, Shape3
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.labels.statistics import StatisticsAccumulator
from voxport.domain.viewing.slicing import PLANES, Picture, PlaneView
from voxport.domain.volume import Volume
from voxport.services.segmentation.case import Case, survey
from voxport.services.viewing.preview import display_window, preview_picture

from tests.services.conftest import make_grid

GAP = 8
TABLE = LabelTable((Label(1, "red", "#ff0000"), Label(2, "green", "#00ff00")))
Show = Callable[..., Picture]


@pytest.fixture
def show(opened: Callable[..., Case]) -> Show:
    """The preview of values and labels on a grid."""

    def run(values: NDArray[np.generic], labels: NDArray[np.uint8], grid: Grid) -> Picture:
        case = opened(Volume(values, grid))
        whole = Box.whole(grid.shape)
        mask = MemoryStore().create("mask", grid, np.dtype(np.uint8))
        mask.write(whole, labels)
        found = StatisticsAccumulator(grid, TABLE, 1, 0)
        found.add(whole, labels, case.read(whole))
        return preview_picture(case, mask, display_window(survey(case, 0.0)[0]), TABLE, found.result())

    return run


def panels(picture: Picture, grid: Grid) -> dict[tuple[str, str], NDArray[np.uint8]]:
    """The six panels by row (bare, overlaid) and plane, for square voxels."""
    found: dict[tuple[str, str], NDArray[np.uint8]] = {}
    top = 0
    sizes = [PlaneView.of(grid, plane).change.apply_shape(grid.shape)[:2] for plane in PLANES]
    for row in ("bare", "overlaid"):
        left = 0
        for plane, (rows, columns) in zip(PLANES, sizes, strict=True):
            found[row, plane] = picture.pixels[top : top + rows, left : left + columns]
            left += columns + GAP
        top += max(rows for rows, _ in sizes) + GAP
    return found


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PIL"])
@pytest.mark.parametrize("voxel", [(3, 7, 11), (17, 1, 4)])
def test_a_voxel_appears_at_its_place_in_all_three_planes(show: Show, codes: str, voxel: Shape3) -> None:
    grid = make_grid((20, 15, 12), codes=codes)
    values, labels = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    values[voxel], labels[voxel] = 200, 1
    found = panels(show(values, labels, grid), grid)
    for plane in PLANES:
        row, column, _ = PlaneView.of(grid, plane).pixel_of(voxel)
        assert np.argwhere(found["bare", plane].any(axis=-1)).tolist() == [[row, column]]
        red = found["overlaid", plane][row, column].astype(int)
        assert red[0] > red[1] + 50
        assert red[1] == red[2]


def test_the_picture_holds_six_panels_and_their_letters(show: Show) -> None:
    grid = make_grid((20, 15, 12))
    picture = show(np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8), grid)
    # axial 15 x 20, coronal 12 x 20, sagittal 12 x 15; two rows of them
    assert picture.pixels.shape == (2 * 15 + GAP, 20 + 20 + 15 + 2 * GAP, 3)
    assert sorted(mark.text for mark in picture.marks) == sorted(2 * "APRL" + 2 * "SIRL" + 2 * "SIAP")


def test_the_planes_go_through_the_largest_labels_centroid(show: Show) -> None:
    grid = make_grid((20, 15, 12))
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:5, 2:5, 2:5], labels[10:15, 8:13, 4:9] = 1, 2
    found = panels(show(np.zeros(grid.shape, np.uint8), labels, grid), grid)
    for plane in PLANES:
        overlaid = found["overlaid", plane].astype(int)
        green = overlaid[..., 1] > overlaid[..., 0]
        assert green.sum() == 25
        # the smaller label lies in none of the three planes
        assert not (overlaid[..., 0] > overlaid[..., 1]).any()


def test_an_empty_mask_shows_the_middle(show: Show) -> None:
    grid = make_grid((20, 15, 12))
    values = np.zeros(grid.shape, np.uint8)
    values[10, 7, 6] = 255
    found = panels(show(values, np.zeros(grid.shape, np.uint8), grid), grid)
    for plane in PLANES:
        assert found["bare", plane].any(axis=-1).sum() == 1
        np.testing.assert_array_equal(found["bare", plane], found["overlaid", plane])


def test_outliers_do_not_darken_the_picture(show: Show) -> None:
    grid = make_grid((20, 15, 12))
    values = np.random.default_rng(0).random(grid.shape, np.float32)
    values[0, 0, 0] = 1e6
    labels = np.zeros(grid.shape, np.uint8)
    bare = panels(show(values, labels, grid), grid)["bare", "axial"]
    assert 100 < bare.mean() < 155
    assert bare.min() == 0
    assert bare.max() == 255


def test_a_few_bright_voxels_in_a_black_volume_are_still_seen(show: Show) -> None:
    """Fewer than the percentiles leave out: the whole range is shown."""
    grid = make_grid((20, 15, 12))
    values = np.zeros(grid.shape, np.uint16)
    values[10, 7, 6] = 4000
    assert panels(show(values, np.zeros(grid.shape, np.uint8), grid), grid)["bare", "axial"].max() == 255


def test_voxels_that_are_not_cubes_are_shown_in_proportion(show: Show) -> None:
    grid = make_grid((20, 15, 12), (1.0, 1.0, 2.5))
    picture = show(np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8), grid)
    assert picture.pixels.shape == (2 * 30 + GAP, 20 + 20 + 15 + 2 * GAP, 3)


def test_stretched_values_are_smooth_and_stretched_labels_are_not(show: Show) -> None:
    grid = make_grid((20, 15, 12), (1.0, 1.0, 2.5))
    values, labels = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    values[:, :, 6:], labels[:, :, :6] = 255, 1
    pixels = show(values, labels, grid).pixels
    bare, overlaid = pixels[:30, 20 + GAP : 40 + GAP], pixels[30 + GAP :, 20 + GAP : 40 + GAP]
    assert len(np.unique(bare)) > 2
    red = overlaid[..., 0] != overlaid[..., 1]
    assert red.sum(axis=0).tolist() == [15] * 20


def test_large_planes_are_thinned_out(show: Show) -> None:
    grid = make_grid((1600, 4, 4))
    picture = show(np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8), grid)
    assert picture.pixels.shape[1] < 2 * 768 + 50


def test_non_finite_values_are_black(show: Show) -> None:
    grid = make_grid((20, 15, 12))
    values = np.random.default_rng(0).random(grid.shape, np.float32) + 1
    values[:, :, 6] = np.nan
    bare = panels(show(values, np.zeros(grid.shape, np.uint8), grid), grid)["bare", "axial"]
    assert not bare.any()
