"""Labels come back from their bits, and take as few of them as the highest needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.labels.packing import packed, unpacked


@given(st.integers(0, 70_000), st.tuples(*[st.integers(0, 7)] * 3), st.integers(0, 2**32 - 1))
def test_labels_come_back(highest: int, shape: tuple[int, int, int], seed: int) -> None:
    dtype = np.min_scalar_type(highest)
    labels = np.random.RandomState(seed).randint(0, highest + 1, shape).astype(dtype)
    found = unpacked(packed(labels, highest), shape, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(("highest", "size"), [(0, 8), (1, 8), (2, 16), (3, 16), (4, 24), (255, 64), (256, 72)])
def test_a_voxel_takes_the_bits_of_the_highest_label(highest: int, size: int) -> None:
    assert packed(np.full((4, 4, 4), highest, np.min_scalar_type(highest)), highest).nbytes == size
