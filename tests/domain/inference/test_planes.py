"""A tile of planes is what numpy's moveaxis gives, whatever the shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.inference.sliding_window import from_planes

EDGES = st.integers(1, 9)


@given(shape=st.tuples(EDGES, EDGES, EDGES, EDGES), axis=st.integers(0, 2), strided=st.booleans())
def test_planes_make_up_the_tile_that_they_were_cut_from(
    shape: tuple[int, int, int, int], axis: int, strided: bool
) -> None:
    tile = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    if strided:
        tile = np.flip(tile.transpose(0, 3, 2, 1), axis=1)
    back = from_planes(list(np.moveaxis(tile, 1 + axis, 0)), axis)
    np.testing.assert_array_equal(back, tile)
    assert back.flags.c_contiguous


@pytest.mark.parametrize("shape", [(2, 64, 65, 3), (1, 2, 2, 5000), (1, 4096, 1, 2), (1, 1, 4097, 1)])
def test_large_tiles_are_turned_in_pieces_that_fit_together(shape: tuple[int, int, int, int]) -> None:
    tile = np.random.default_rng(0).random(shape, np.float32)
    np.testing.assert_array_equal(from_planes(list(np.moveaxis(tile, 3, 0)), 2), tile)
