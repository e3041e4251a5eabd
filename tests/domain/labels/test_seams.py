"""Components of a mask in boxes are those of the whole mask."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from voxport.domain.geometry.grid import Box, Shape3, shape3
from voxport.domain.labels.seams import count_components, grown, seen

shapes = st.tuples(*[st.integers(1, 9)] * 3)


def boxes_of(shape: Shape3, edges: Shape3) -> list[Box]:
    starts = product(*(range(0, length, edge) for length, edge in zip(shape, edges, strict=True)))
    return [
        Box(shape3(start), shape3(min(a + e, n) for a, e, n in zip(start, edges, shape, strict=True)))
        for start in starts
    ]


@given(shapes, shapes, st.floats(0, 1), st.integers(0, 99), st.randoms())
def test_boxes_in_any_order_count_the_components_of_the_whole(
    shape: Shape3, edges: Shape3, share: float, seed: int, shuffler: object
) -> None:
    mask = np.random.default_rng(seed).random(shape) < share * 0.3
    boxes = boxes_of(shape, edges)
    shuffler.shuffle(boxes)  # type: ignore[attr-defined]
    found = [seen(mask[grown(box, shape).slices], box, shape) for box in boxes]
    assert count_components(found) == ndimage.label(mask, np.ones((3, 3, 3)))[1]


def test_voxels_that_touch_at_the_corner_of_eight_boxes_are_one() -> None:
    for a, b in (((3, 3, 3), (4, 4, 4)), ((3, 4, 3), (4, 3, 4)), ((4, 4, 3), (3, 3, 4)), ((4, 3, 3), (3, 4, 4))):
        mask = np.zeros((8, 8, 8), bool)
        mask[a] = mask[b] = True
        found = [seen(mask[grown(box, (8, 8, 8)).slices], box, (8, 8, 8)) for box in boxes_of((8, 8, 8), (4, 4, 4))]
        assert count_components(found) == 1


def test_nothing_has_no_components() -> None:
    assert count_components([]) == 0
    box = Box((0, 0, 0), (2, 2, 2))
    assert count_components([seen(np.zeros((2, 2, 2), bool), box, (2, 2, 2))]) == 0
