"""Contract suite of `PictureEncoder`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ..domain.viewing.slicing import Mark, Picture
from ..ports.pictures import PictureEncoder


class PictureEncoderContract:
    """Subclass and implement the hooks; ``decode`` must not use the adapter."""

    def make_encoder(self) -> PictureEncoder:
        """Return an encoder."""
        raise NotImplementedError

    def decode(self, content: bytes) -> NDArray[np.uint8]:
        """Return the pixels ``(H, W, 3)`` of an encoded picture."""
        raise NotImplementedError

    @pytest.mark.parametrize("shape", [(1, 1), (3, 7), (120, 45)])
    @pytest.mark.parametrize("quickly", [False, True])
    def test_pixels_survive_exactly(self, shape: tuple[int, int], quickly: bool) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        encoded = self.make_encoder().encode(Picture(pixels), quickly=quickly)
        np.testing.assert_array_equal(self.decode(encoded), pixels)

    def test_a_mark_is_drawn_in_white_about_its_place_and_nowhere_else(self) -> None:
        pixels = np.full((60, 90, 3), 128, np.uint8)
        drawn = self.decode(self.make_encoder().encode(Picture(pixels, (Mark(20, 70, "R"),))))
        rows, columns = np.nonzero((drawn != 128).any(axis=-1))
        assert (drawn == 255).all(axis=-1).any()
        assert abs(rows.mean() - 20) < 4
        assert abs(columns.mean() - 70) < 4
        assert np.ptp(rows) < 24
        assert np.ptp(columns) < 24

    def test_the_same_picture_gives_the_same_bytes(self) -> None:
        picture = Picture(np.arange(300, dtype=np.uint8).reshape(10, 10, 3), (Mark(5, 5, "A"),))
        assert self.make_encoder().encode(picture) == self.make_encoder().encode(picture)
