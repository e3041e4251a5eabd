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
        """Return red, green, blue and opacity ``(H, W, 4)`` of an encoded picture."""
        raise NotImplementedError

    @pytest.mark.parametrize("shape", [(1, 1), (3, 7), (120, 45)])
    @pytest.mark.parametrize("quickly", [False, True])
    def test_pixels_survive_exactly(self, shape: tuple[int, int], quickly: bool) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        encoded = self.make_encoder().encode(Picture(pixels), quickly=quickly)
        np.testing.assert_array_equal(self.decode(encoded)[..., :3], pixels)

    def test_a_mark_is_drawn_in_white_about_its_place_and_nowhere_else(self) -> None:
        pixels = np.full((60, 90, 3), 128, np.uint8)
        drawn = self.decode(self.make_encoder().encode(Picture(pixels, (Mark(20, 70, "R"),))))[..., :3]
        rows, columns = np.nonzero((drawn != 128).any(axis=-1))
        assert (drawn == 255).all(axis=-1).any()
        assert abs(rows.mean() - 20) < 4
        assert abs(columns.mean() - 70) < 4
        assert np.ptp(rows) < 24
        assert np.ptp(columns) < 24

    @pytest.mark.parametrize("shape", [(1, 1), (3, 7), (120, 45)])
    def test_grey_levels_survive_exactly(self, shape: tuple[int, int]) -> None:
        grey = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        for stored in (grey, grey[::-1, ::2], np.asfortranarray(grey)):
            found = self.decode(self.make_encoder().encode_grey(stored))
            np.testing.assert_array_equal(found[..., :3], np.repeat(stored[..., np.newaxis], 3, axis=-1))
            assert (found[..., 3] == 255).all()

    @pytest.mark.parametrize("shape", [(1, 1), (3, 7), (120, 45)])
    @pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
    def test_a_layer_has_its_colour_inside_and_is_transparent_outside(
        self, shape: tuple[int, int], share: float
    ) -> None:
        inside = np.random.default_rng(0).random(shape) < share
        found = self.decode(self.make_encoder().encode_layer(inside, (230, 5, 0)))
        np.testing.assert_array_equal(found[..., 3], np.where(inside, 255, 0))
        assert (found[inside, :3] == (230, 5, 0)).all()

    def test_the_same_picture_gives_the_same_bytes(self) -> None:
        picture = Picture(np.arange(300, dtype=np.uint8).reshape(10, 10, 3), (Mark(5, 5, "A"),))
        assert self.make_encoder().encode(picture) == self.make_encoder().encode(picture)
