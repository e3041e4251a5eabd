"""Planes are shown by anatomy, whatever order a volume is stored in."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from voxport.domain.geometry.grid import Box, Grid, Reorientation, Shape3
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.viewing.slicing import (
    PLANES,
    Convention,
    Mark,
    Picture,
    Plane,
    PlaneView,
    overlay,
    side_by_side,
    side_marks,
    square_pixels,
    stacked,
    to_grey,
)
from voxport.testing.strategies import grids

ALL_CHANGES = [
    Reorientation((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
    for order in permutations(range(3))
    for flips in product((False, True), repeat=3)
]
CONVENTIONS: tuple[Convention, ...] = ("radiological", "neurological")
planes, conventions = st.sampled_from(PLANES), st.sampled_from(CONVENTIONS)
RAS = Grid((4, 5, 6), np.diag([0.5, 1.0, 2.0, 1.0]), "mm")
TABLE = LabelTable((Label(1, "a", "#ff0000"), Label(2, "b", "#0000ff")))

# Where a voxel far to the right, anterior and superior shows: (top or bottom, left or right).
CORNERS: dict[tuple[Plane, Convention], tuple[str, str]] = {
    ("axial", "radiological"): ("top", "left"),
    ("axial", "neurological"): ("top", "right"),
    ("coronal", "radiological"): ("top", "left"),
    ("coronal", "neurological"): ("top", "right"),
    ("sagittal", "radiological"): ("top", "left"),
    ("sagittal", "neurological"): ("top", "left"),
}


def slice_of(volume: NDArray[Any], view: PlaneView, index: int) -> NDArray[Any]:
    return view.display(volume[view.box(index).slices])


@given(grids(), planes, conventions)
def test_consecutive_slices_lie_along_the_stored_axis(grid: Grid, plane: Plane, convention: Convention) -> None:
    view = PlaneView.of(grid, plane, convention)
    assert view.count == grid.shape[view.stored_axis]
    edges = [view.box(index).shape for index in range(view.count)]
    assert all(edge[view.stored_axis] == 1 for edge in edges)


@pytest.mark.parametrize("change", ALL_CHANGES)
@pytest.mark.parametrize(("plane", "convention"), list(CORNERS))
def test_a_marker_shows_in_its_corner_from_every_storage_order(
    plane: Plane, convention: Convention, change: Reorientation
) -> None:
    marker = np.zeros(RAS.shape, np.uint8)
    marker[-1, -1, -1] = 1
    stored, grid = change.apply(marker), change.apply_grid(RAS)
    view = PlaneView.of(grid, plane, convention)
    last = slice_of(stored, view, view.count - 1)
    vertical, horizontal = CORNERS[plane, convention]
    assert last[0 if vertical == "top" else -1, 0 if horizontal == "left" else -1] == 1
    assert last.sum() == 1
    assert slice_of(stored, view, 0).sum() == 0


@pytest.mark.parametrize(
    ("plane", "convention", "letters"),
    [
        ("axial", "radiological", "APRL"),
        ("axial", "neurological", "APLR"),
        ("coronal", "radiological", "SIRL"),
        ("coronal", "neurological", "SILR"),
        ("sagittal", "radiological", "SIAP"),
        ("sagittal", "neurological", "SIAP"),
    ],
)
def test_letters_name_top_bottom_left_and_right(plane: Plane, convention: Convention, letters: str) -> None:
    assert PlaneView.of(RAS, plane, convention).letters == dict(
        zip(("top", "bottom", "left", "right"), letters, strict=True)
    )


def voxel_at(view: PlaneView, row: int, column: int, index: int) -> Shape3:
    pixel = Box((row, column, index), (row + 1, column + 1, index + 1))
    return view.change.source_box(pixel, view.grid.shape).start


@given(grids(), planes, conventions)
def test_letters_are_where_the_world_says(grid: Grid, plane: Plane, convention: Convention) -> None:
    view = PlaneView.of(grid, plane, convention)
    towards = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    origin = grid.world(voxel_at(view, 0, 0, 0))
    rows, columns, _ = view.change.apply_shape(grid.shape)
    down = grid.world(voxel_at(view, rows - 1, 0, 0)) - origin
    right = grid.world(voxel_at(view, 0, columns - 1, 0)) - origin
    assert rows == 1 or down @ towards[view.letters["bottom"]] > 0
    assert columns == 1 or right @ towards[view.letters["right"]] > 0


def test_radiological_is_the_default() -> None:
    assert PlaneView.of(RAS, "axial") == PlaneView.of(RAS, "axial", "radiological")


@given(grids(), planes, conventions, st.data())
def test_pixels_and_voxels_lead_back_to_each_other(
    grid: Grid, plane: Plane, convention: Convention, data: st.DataObject
) -> None:
    view = PlaneView.of(grid, plane, convention)
    voxel = data.draw(st.tuples(*(st.integers(0, n - 1) for n in grid.shape)))
    pixel = view.pixel_of(voxel)
    assert voxel_at(view, *pixel) == voxel
    numbered = np.arange(grid.voxel_count).reshape(grid.shape)
    row, column, index = pixel
    assert slice_of(numbered, view, index)[row, column] == numbered[voxel]


@given(grids(), planes, conventions)
def test_slices_hold_every_voxel_once(grid: Grid, plane: Plane, convention: Convention) -> None:
    view = PlaneView.of(grid, plane, convention)
    numbered = np.arange(grid.voxel_count).reshape(grid.shape)
    shown = np.concatenate([slice_of(numbered, view, index).ravel() for index in range(view.count)])
    np.testing.assert_array_equal(np.sort(shown), np.arange(grid.voxel_count))


def test_display_leaves_leading_axes_alone() -> None:
    view = PlaneView.of(RAS, "coronal")
    volume = np.random.default_rng(0).random((3, *RAS.shape))
    shown = view.display(volume[(Ellipsis, *view.box(2).slices)])
    assert shown.shape == (3, 6, 4)
    np.testing.assert_array_equal(shown[1], slice_of(volume[1], view, 2))


@pytest.mark.parametrize(
    ("plane", "count", "spacing"), [("axial", 6, (1.0, 0.5)), ("coronal", 5, (2.0, 0.5)), ("sagittal", 4, (2.0, 1.0))]
)
@pytest.mark.parametrize("change", ALL_CHANGES[::7])
def test_the_number_of_slices_and_the_pixels_size_do_not_depend_on_the_storage_order(
    plane: Plane, count: int, spacing: tuple[float, float], change: Reorientation
) -> None:
    view = PlaneView.of(change.apply_grid(RAS), plane)
    assert view.count == count
    assert view.pixel_spacing == pytest.approx(spacing)


# Grey levels and aspect


def test_grey_runs_from_low_to_high_and_is_limited_to_it() -> None:
    values = np.array([-100, 10, 15, 20, 400], np.int16)
    grey = to_grey(values, 10, 20)
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 128, 255, 255]


def test_a_window_without_width_shows_what_is_above_it() -> None:
    assert to_grey(np.array([4.0, 5.0, 6.0]), 5, 5).tolist() == [0, 0, 255]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    ("spacing", "shape"), [((1.0, 1.0), (10, 6)), ((2.0, 1.0), (20, 6)), ((0.5, 2.0), (10, 24)), ((1.0, 1.5), (10, 9))]
)
def test_pixels_become_square(spacing: tuple[float, float], shape: tuple[int, int], smooth: bool) -> None:
    image = np.arange(60, dtype=np.uint8).reshape(10, 6)
    assert square_pixels(image, spacing, smooth=smooth).shape == shape


def test_pixels_that_are_square_within_a_thousandth_stay_untouched() -> None:
    image = np.zeros((3, 3), np.uint8)
    assert square_pixels(image, (1.0, 1.0005), smooth=True) is image


def test_labels_are_repeated_and_values_interpolated() -> None:
    image = np.array([[0, 200]], np.uint8)
    np.testing.assert_array_equal(square_pixels(image, (1.0, 2.0), smooth=False), [[0, 0, 200, 200]])
    np.testing.assert_array_equal(square_pixels(image, (1.0, 2.0), smooth=True), [[0, 50, 150, 200]])


@given(st.integers(1, 12), st.integers(1, 12), st.floats(1, 6))
def test_stretching_invents_no_label(rows: int, columns: int, ratio: float) -> None:
    labels = np.random.default_rng(0).choice([0, 3, 9], (rows, columns)).astype(np.uint8)
    stretched = square_pixels(labels, (ratio, 1.0), smooth=False)
    assert set(np.unique(stretched)) <= set(np.unique(labels))


# Overlay


@pytest.mark.parametrize(("opacity", "expected"), [(0.0, [100, 100, 100]), (0.5, [178, 50, 50]), (1.0, [255, 0, 0])])
def test_opacity_mixes_a_labels_colour_with_the_grey_below(opacity: float, expected: list[int]) -> None:
    grey = np.full((1, 2), 100, np.uint8)
    picture = overlay(grey, np.array([[0, 1]], np.uint8), TABLE, opacity=opacity)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[0, 1].tolist() == expected


def test_each_label_has_its_own_colour_and_values_without_one_stay_grey() -> None:
    grey = np.zeros((1, 4), np.uint8)
    picture = overlay(grey, np.array([[0, 1, 2, 3]], np.uint8), TABLE, opacity=1.0)
    assert picture[0].tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 0, 0]]


def test_an_outline_is_one_pixel_wide_and_leaves_the_inside_grey() -> None:
    labels = np.zeros((7, 7), np.uint8)
    labels[1:6, 1:6] = 1
    before = labels.copy()
    picture = overlay(np.zeros((7, 7), np.uint8), labels, TABLE, opacity=1.0, outline=True)
    expected = labels.copy()
    expected[2:5, 2:5] = 0
    np.testing.assert_array_equal(picture[..., 0], expected * 255)
    np.testing.assert_array_equal(labels, before)


# Pictures


def flat(rows: int, columns: int, level: int, *marks: Mark) -> Picture:
    return Picture(np.full((rows, columns, 3), level, np.uint8), marks)


def test_pictures_side_by_side_are_aligned_at_the_top_on_black() -> None:
    row = side_by_side([flat(2, 3, 10, Mark(0, 1, "A")), flat(4, 2, 20, Mark(3, 0, "B"))], gap=1)
    assert row.pixels.shape == (4, 6, 3)
    assert row.pixels[..., 0].tolist() == [
        [10, 10, 10, 0, 20, 20],
        [10, 10, 10, 0, 20, 20],
        [0, 0, 0, 0, 20, 20],
        [0, 0, 0, 0, 20, 20],
    ]
    assert row.marks == (Mark(0, 1, "A"), Mark(3, 4, "B"))


def test_stacked_pictures_are_aligned_at_the_left_on_black() -> None:
    column = stacked([flat(1, 3, 10, Mark(0, 1, "A")), flat(2, 2, 20, Mark(1, 0, "B"))], gap=1)
    assert column.pixels[..., 0].tolist() == [[10, 10, 10], [0, 0, 0], [20, 20, 0], [20, 20, 0]]
    assert column.marks == (Mark(0, 1, "A"), Mark(3, 0, "B"))


def test_one_picture_beside_nothing_stays_as_it_is() -> None:
    picture = flat(2, 3, 9)
    np.testing.assert_array_equal(side_by_side([picture]).pixels, picture.pixels)


def test_orientation_letters_stand_in_the_middle_of_the_four_sides() -> None:
    marks = side_marks(PlaneView.of(RAS, "axial"), 100, 60, margin=5)
    assert marks == (Mark(5, 30, "A"), Mark(94, 30, "P"), Mark(50, 5, "R"), Mark(50, 54, "L"))
