"""PngPictures keeps the PictureEncoder contract; decoding is scikit-free: zlib and the PNG filters by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from voxport.adapters.pictures.png import PngPictures
from voxport.ports.pictures import PictureEncoder
from voxport.testing.pictures import PictureEncoderContract

_GREY, _RGB, _PALETTE = 0, 2, 3


def decode_png(content: bytes) -> NDArray[np.uint8]:
    """Pixels ``(H, W, 4)`` of a grey, RGB or palette PNG, by the specification: chunks, zlib, and the row filters."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    position, chunks = 8, dict[bytes, bytes]()
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind, body = content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
        chunks[kind] = chunks.get(kind, b"") + body
        position += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8 or colour == _PALETTE
    values = 3 if colour == _RGB else 1
    wide = -(-width * values * depth // 8)
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + wide)
    rows = np.zeros((height + 1, wide + values), np.int64)
    for y in range(height):
        for x in range(wide):
            left, up, corner = (int(rows[at]) for at in ((y + 1, x), (y, x + values), (y, x)))
            rows[y + 1, x + values] = (int(raw[y, 1 + x]) + _predicted(int(raw[y, 0]), left, up, corner)) % 256
    stored = rows[1:, values:].astype(np.uint8)
    pixels = np.full((height, width, 4), 255, np.uint8)
    if colour == _PALETTE:
        bits = np.unpackbits(stored, axis=1).reshape(height, -1, depth)[:, :width]
        index = bits @ (1 << np.arange(depth)[::-1])
        palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
        opacity = np.full(len(palette), 255, np.uint8)
        opacity[: len(chunks[b"tRNS"])] = np.frombuffer(chunks[b"tRNS"], np.uint8)
        pixels[..., :3], pixels[..., 3] = palette[index], opacity[index]
    else:
        pixels[..., :3] = stored.reshape(height, width, values)
    return pixels


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        guess = left + up - corner
        return min((left, up, corner), key=lambda near: abs(guess - near))
    return (0, left, up, (left + up) // 2)[kind]


class TestPngPictures(PictureEncoderContract):
    def make_encoder(self) -> PictureEncoder:
        return PngPictures()

    def decode(self, content: bytes) -> NDArray[np.uint8]:
        return decode_png(content)
