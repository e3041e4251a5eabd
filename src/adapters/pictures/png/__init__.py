"""PNG pictures with Pillow."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

from ....domain.viewing.slicing import Picture
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
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1 if quickly else 6)
        return file.getvalue()
