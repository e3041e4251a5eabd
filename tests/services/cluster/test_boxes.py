"""The boxes that workers read and write."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.geometry.grid import Box
from voxport.services.cluster.tasks import boxes_within

THREE = st.tuples(*[st.integers(1, 40)] * 3)


@given(THREE, THREE, st.integers(1, 50))
def test_each_voxel_is_in_one_box_and_each_box_has_whole_chunks(
    shape: tuple[int, int, int], chunk: tuple[int, int, int], edge: int
) -> None:
    boxes = boxes_within(Box.whole(shape), chunk, edge)
    counts = np.zeros(shape, int)
    for number in range(len(boxes)):
        box = boxes[number]
        counts[box.slices] += 1
        for start, stop, length, voxels in zip(box.start, box.stop, chunk, shape, strict=True):
            assert start % length == 0
            assert stop % length == 0 or stop == voxels
            assert stop - start <= max(edge, length)
    assert np.all(counts == 1)


def test_a_task_stays_small_however_many_boxes_there_are() -> None:
    boxes = boxes_within(Box.whole((10_000, 10_000, 10_000)), (128, 128, 64), 480)
    assert len(boxes) > 10_000
    assert len(pickle.dumps(boxes)) < 1000
