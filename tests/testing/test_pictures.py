"""The encoder that can be read back keeps the contract."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from voxport.ports.pictures import PictureEncoder
from voxport.testing.pictures import PictureEncoderContract, PpmPictures


class TestPpmPictures(PictureEncoderContract):
    def make_encoder(self) -> PictureEncoder:
        return PpmPictures()

    def decode(self, content: bytes) -> NDArray[np.uint8]:
        return np.asarray(Image.open(io.BytesIO(content)))


def test_it_decodes_what_it_encodes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    header = b"P6 5 3 255\n"
    np.testing.assert_array_equal(PpmPictures.decode(header + pixels.tobytes()), pixels)
