"""How slices are shown: window, square pixels, scale bar, and the part of a volume around a place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.geometry.grid import Grid
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.viewing.display import (
    Display,
    around,
    bar_length,
    bar_steps,
    plane_picture,
    plane_pixels,
    window_of,
)
from voxport.domain.viewing.slicing import PlaneView
from voxport.testing.strategies import shapes

TABLE = LabelTable((Label(1, "a", "#ff0000"), Label(2, "b", "#0000ff")))
VIEW = PlaneView.of(Grid((4, 5, 6), np.diag([0.5, 1.0, 2.0, 1.0]), "mm"), "axial", "neurological")


def test_the_window_leaves_out_what_is_rare() -> None:
    values = np.concatenate([np.full(998, 10.0), [9.0, 5000.0]])
    values[:100] = 20
    low, high = window_of(values)
    assert 9 <= low <= 10
    assert high == 20


@pytest.mark.parametrize(
    ("values", "window"),
    [
        ([3, 3, 3], (3, 3)),
        ([0] * 999 + [7], (0, 7)),
        ([], (0, 1)),
        ([np.nan, np.inf], (0, 1)),
        ([np.nan, 2, 4], (2, 4)),
    ],
)
def test_the_window_of_odd_values(values: list[float], window: tuple[float, float]) -> None:
    assert window_of(np.array(values)) == pytest.approx(window, abs=0.02)


def test_pixels_are_square_and_the_longest_edge_is_kept_to() -> None:
    values = np.zeros((5, 4))
    assert plane_pixels(VIEW, values, None, Display(0, 1)).shape == (10, 4, 3)
    assert plane_pixels(VIEW, values, None, Display(0, 1), longest=5).shape == (5, 2, 3)


def test_hidden_labels_do_not_show_and_others_have_their_colour() -> None:
    values, labels = np.zeros((5, 4)), np.zeros((5, 4), np.uint8)
    labels[:2], labels[3:] = 1, 2
    shown = plane_pixels(VIEW, values, labels, Display(0, 1, LabelTable(TABLE.labels[1:]), opacity=1.0))
    assert not shown[:4].any()
    assert (shown[-2:] == (0, 0, 255)).all()


@given(st.floats(1e-6, 1e6))
def test_a_scale_bar_is_the_longest_of_1_2_5_within_a_quarter(width: float) -> None:
    length = bar_length(width)
    assert 0.099 * width < length <= 0.25 * width
    assert f"{length:e}"[0] in "125"
    assert length in bar_steps(width, width)


def test_the_bar_is_drawn_as_long_as_it_says() -> None:
    pixels = np.full((100, 200, 3), 90, np.uint8)
    picture = plane_picture(VIEW, pixels, 2.0, "um")
    (bar,) = (mark for mark in picture.marks if "um" in mark.text)
    assert bar.text == "0.5 um"
    assert (picture.pixels == 255).all(axis=-1).sum() == 50
    assert (pixels == 90).all()
    assert {mark.text for mark in picture.marks} == {"A", "P", "L", "R", "0.5 um"}


def test_a_picture_too_small_for_a_bar_has_its_length_only() -> None:
    picture = plane_picture(VIEW, np.full((9, 9, 3), 90, np.uint8), 9.0, "unknown")
    assert (picture.pixels == 90).all()
    assert "2 units" in [mark.text for mark in picture.marks]


@given(shapes(9), st.data())
def test_the_box_about_a_voxel_holds_it_and_is_as_large_as_it_may(
    shape: tuple[int, int, int], data: st.DataObject
) -> None:
    voxel = data.draw(st.tuples(*(st.integers(0, n - 1) for n in shape)))
    edges = data.draw(shapes(9))
    box = around(voxel, shape, edges)
    for at, start, stop, length, edge in zip(voxel, box.start, box.stop, shape, edges, strict=True):
        assert 0 <= start <= at < stop <= length
        assert stop - start == min(edge, length)
