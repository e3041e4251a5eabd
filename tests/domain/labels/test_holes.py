"""Holes are filled as scipy fills them in the whole mask, whatever slabs it comes in."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from voxport.domain.labels.holes import Holes

from .test_components import masks

Mask = NDArray[np.bool_]


def slabs(mask: Mask, axis: int, thickness: int) -> Iterator[Mask]:
    for start in range(0, mask.shape[axis], thickness):
        yield np.take(mask, range(start, min(start + thickness, mask.shape[axis])), axis)


def filled(mask: Mask, axis: int, thickness: int = 1) -> Mask:
    return np.concatenate(list(Holes.found(slabs(mask, axis, thickness), axis).filled(slabs(mask, axis, 1))), axis)


@given(masks(), st.integers(0, 2), st.integers(1, 9), st.integers(1, 9))
def test_holes_are_filled_as_in_the_whole_mask_for_slabs_of_any_thickness(
    mask: Mask, axis: int, first: int, then: int
) -> None:
    holes = Holes.found(slabs(mask, axis, first), axis)
    for thickness in (then, first):
        found = list(holes.filled(slabs(mask, axis, thickness)))
        assert [len(f) for f in found] == [len(s) for s in slabs(mask, axis, thickness)]
        np.testing.assert_array_equal(np.concatenate(found, axis), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("axis", range(3))
def test_a_hole_that_opens_by_a_face_is_none_and_by_a_corner_is_one(axis: int) -> None:
    mask = np.ones((5, 5, 5), bool)
    mask[2, 2, 2] = False
    assert filled(mask, axis).all()
    mask[1, 1, 2] = mask[0, 1, 1] = False  # each touches the next by an edge or a corner alone
    assert filled(mask, axis).sum() == 124
    mask[1, 2, 2] = mask[0, 2, 2] = False
    np.testing.assert_array_equal(filled(mask, axis), mask)


def test_memory_is_that_of_planes_and_not_of_the_volume() -> None:
    planes, edge = 192, 256
    plane = np.zeros((1, edge, edge), bool)
    plane[0, 40:200, 40:200] = True
    hole = plane.copy()
    hole[0, 60:90, 60:90] = False
    shell = [hole if 30 < number < 150 else plane for number in range(planes)]
    tracemalloc.start()
    holes = Holes.found(iter(shell), 0)
    changed = sum(int((after != before).sum()) for before, after in zip(shell, holes.filled(iter(shell)), strict=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert changed == 119 * 30 * 30
    assert peak < planes * edge * edge / 4
