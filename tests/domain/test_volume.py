"""A volume is its values and its grid, and cannot be changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from voxport.domain.geometry.grid import Grid
from voxport.domain.volume import Volume
from voxport.testing.strategies import orientation_codes, volumes

GRID = Grid((2, 3, 4), np.eye(4), "um")


def test_a_volume_copies_its_array_in_and_makes_it_read_only() -> None:
    array = np.zeros((1, 2, 3, 4), np.int16)
    volume = Volume(array, GRID)
    array[...] = 1
    assert not volume.array.any()
    with pytest.raises(ValueError, match="read-only"):
        volume.array[...] = 1


def test_three_axes_are_one_channel() -> None:
    volume = Volume(np.zeros((2, 3, 4)), GRID)
    assert volume.array.shape == (1, 2, 3, 4)
    assert volume.channels == 1
    assert Volume(np.zeros((5, 2, 3, 4)), GRID).channels == 5


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (1, 3, 2, 4), (1, 1, 2, 3, 4)])
def test_an_array_that_does_not_fit_the_grid_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"array: expected \(C, \(2, 3, 4\)\)"):
        Volume(np.zeros(shape), GRID)


def test_equal_volumes_are_equal_and_hash_alike() -> None:
    one, other = (Volume(np.arange(24).reshape(2, 3, 4), Grid((2, 3, 4), np.eye(4), "um")) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


def test_volumes_differ_in_one_voxel() -> None:
    array = np.zeros((2, 3, 4))
    array[1, 2, 3] = 1e-30
    assert Volume(array, GRID) != Volume(np.zeros((2, 3, 4)), GRID)


def test_volumes_differ_in_their_grid_and_in_their_channels() -> None:
    volume = Volume(np.zeros((2, 3, 4)), GRID)
    assert volume != Volume(np.zeros((2, 3, 4)), Grid((2, 3, 4), np.eye(4), "mm"))
    assert volume != Volume(np.zeros((2, 2, 3, 4)), GRID)


def test_a_volume_differs_from_its_array() -> None:
    assert Volume(np.zeros((2, 3, 4)), GRID) != "a volume"


@given(volumes(sheared=True), orientation_codes())
def test_a_reoriented_volume_has_the_codes_and_comes_back_whole(volume: Volume, codes: str) -> None:
    turned = volume.reoriented(codes)
    assert turned.grid.axis_codes == codes
    assert turned.array.dtype == volume.array.dtype
    back = turned.reoriented(volume.grid.axis_codes)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.grid.same_space(volume.grid)
