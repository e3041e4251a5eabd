"""Pieces are counted as scipy counts them in the whole mask, whatever slabs it comes in."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from voxport.domain.labels import components
from voxport.domain.labels.components import ComponentCounter

Mask = NDArray[np.bool_]
_ALL_26_NEIGHBOURS = np.ones((3, 3, 3), bool)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    shape = draw(st.tuples(*[st.integers(1, 8)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    order: Literal["C", "F"] = draw(st.sampled_from(["C", "F"]))
    return np.asarray(random.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.6, 1.0])), order=order)


def counted(mask: Mask, axis: int, thickness: int) -> int:
    counter = ComponentCounter(axis)
    for start in range(0, mask.shape[axis], thickness):
        counter.add(np.take(mask, range(start, min(start + thickness, mask.shape[axis])), axis))
    return counter.result()


@given(masks(), st.integers(0, 2), st.integers(1, 9), st.sampled_from([1, 30, 2**19]), st.sampled_from([0, 12, 1000]))
def test_pieces_are_those_of_the_whole_by_runs_and_by_labelling(
    mask: Mask, axis: int, thickness: int, at_once: int, per_run: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "_VOXELS_AT_ONCE", at_once)
        patch.setattr(components, "_VOXELS_PER_RUN", per_run)
        whole = ComponentCounter(axis)
        whole.add(mask)
        assert whole.result() == counted(mask, axis, thickness) == ndimage.label(mask, _ALL_26_NEIGHBOURS)[1]


@pytest.mark.parametrize("axis", range(3))
def test_corners_connect_and_the_ends_of_lines_and_planes_do_not(axis: int) -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 0, 2] = True
    assert counted(mask, axis, 1) == 1
    for ends in (((0, 0, 2), (0, 1, 0)), ((0, 2, 0), (1, 0, 0)), ((0, 2, 2), (1, 0, 0)), ((2, 2, 0), (2, 0, 2))):
        apart = np.zeros((3, 3, 3), bool)
        for place in ends:
            apart[place] = True
        assert counted(apart, axis, 1) == 2, ends


def test_two_arms_that_meet_in_the_last_plane_are_one_piece() -> None:
    mask = np.zeros((5, 1, 6), bool)
    mask[0, 0] = mask[4, 0] = True
    assert counted(mask, 2, 1) == 2
    mask[:, 0, 5] = True
    assert counted(mask, 2, 1) == 1


def test_an_empty_mask_and_no_mask_have_no_components() -> None:
    assert ComponentCounter(0).result() == 0
    assert counted(np.zeros((4, 5, 6), bool), 1, 2) == 0
