"""PngPictures keeps the PictureEncoder contract; decoding is scikit-free: zlib and the PNG filters by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from voxport.adapters.pictures.png import PngPictures
from voxport.ports.pictures import PictureEncoder
from voxport.testing.pictures import PictureEncoderContract


def decode_png(content: bytes) -> NDArray[np.uint8]:
    """Pixels of an 8-bit RGB PNG, by the specification: chunks, zlib, and the five row filters."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    position, data, width, height = 8, b"", 0, 0
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind, body = content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 2)
        data += body if kind == b"IDAT" else b""
        position += 12 + length
    raw = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + 3 * width)
    rows = np.zeros((height + 1, width + 1, 3), np.int64)
    for y in range(height):
        line = raw[y, 1:].reshape(width, 3)
        for x in range(width):
            left, up, corner = rows[y + 1, x], rows[y, x + 1], rows[y, x]
            rows[y + 1, x + 1] = (line[x] + _predicted(int(raw[y, 0]), left, up, corner)) % 256
    return rows[1:, 1:].astype(np.uint8)


def _predicted(
    kind: int, left: NDArray[np.int64], up: NDArray[np.int64], corner: NDArray[np.int64]
) -> NDArray[np.int64]:
    if kind == 4:
        guess = left + up - corner
        away = np.abs(np.stack([guess - left, guess - up, guess - corner]))
        return np.asarray(np.choose(np.argmin(away, axis=0), np.stack([left, up, corner])))
    return [np.zeros_like(left), left, up, (left + up) // 2][kind]


class TestPngPictures(PictureEncoderContract):
    def make_encoder(self) -> PictureEncoder:
        return PngPictures()

    def decode(self, content: bytes) -> NDArray[np.uint8]:
        return decode_png(content)
