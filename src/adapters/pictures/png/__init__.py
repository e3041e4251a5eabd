"""PNG pictures with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ....domain.labels.comparison import Mask
from ....domain.viewing.slicing import Grey, Picture
from ....ports.pictures import PictureEncoder

_FONT_SIZE = 14


class PngPictures(PictureEncoder):
    """`PictureEncoder` that writes PNG."""

    def encode(self, picture: Picture, *, quickly: bool = False) -> bytes:
        image = Image.fromarray(picture.pixels)
        draw = ImageDraw.Draw(image)
        font = ImageFont.load_default(_FONT_SIZE)
        for mark in picture.marks:
            place = (mark.column, mark.row)
            draw.text(place, mark.text, "white", font, anchor="mm", stroke_width=1, stroke_fill="black")
        return _png(image, quickly=quickly)

    def encode_grey(self, pixels: Grey) -> bytes:
        return _png(Image.fromarray(np.ascontiguousarray(pixels)), quickly=True)

    def encode_layer(self, inside: Mask, colour: tuple[int, int, int]) -> bytes:
        image = Image.fromarray(np.ascontiguousarray(inside, np.uint8))
        image.putpalette([0, 0, 0, *colour])
        return _png(image, quickly=True, transparency=0)


def _png(image: Image.Image, *, quickly: bool, **more: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1 if quickly else 6, **more)
    return file.getvalue()
