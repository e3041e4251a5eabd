"""Minimal NIfTI parsing, to recognise volumes and their inflated size.

Fields: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from math import prod
from typing import IO

from .errors import RemoteError

_HEADER_BYTES = 540
_CHUNK_BYTES = 2**20


def chunks(stored: IO[bytes], *, inflate: bool, url: str) -> Iterator[bytes]:
    """Yield the bytes of a gzip-compressed NIfTI volume, with checks.

    Args:
        stored: the compressed volume, read to its end.
        inflate: yield inflated bytes instead of stored ones.
        url: the server.

    Raises:
        RemoteError: not a volume, damaged, or longer than its header states.
    """
    try:
        yield from _inflated(stored, url) if inflate else _as_stored(stored, url)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise _wrong(url, "a gzip stream that is damaged") from None


def _as_stored(stored: IO[bytes], url: str) -> Iterator[bytes]:
    chunk = stored.read(_CHUNK_BYTES)
    # 31: a gzip stream, with any window
    _promised_bytes(zlib.decompressobj(31).decompress(chunk, _HEADER_BYTES), url)
    while chunk:
        yield chunk
        chunk = stored.read(_CHUNK_BYTES)


def _inflated(stored: IO[bytes], url: str) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stored) as stream:
        chunk = stream.read(_CHUNK_BYTES)
        promised, count = _promised_bytes(chunk, url), 0
        while chunk:
            count += len(chunk)
            if count > promised:
                raise _wrong(url, "one that is longer than its header says")
            yield chunk
            chunk = stream.read(_CHUNK_BYTES)
    if count < promised:
        raise _wrong(url, "one that is shorter than its header says")


def _promised_bytes(head: bytes, url: str) -> int:
    """Return the length of a single-file volume from its header, 348 bytes of NIfTI-1 or 540 of NIfTI-2."""
    order = next((o for o in "<>" if head[:4] in (struct.pack(f"{o}i", 348), struct.pack(f"{o}i", 540))), None)
    if order is not None and head[344:348] == b"n+1\0":
        dimensions = struct.unpack_from(f"{order}8h", head, 40)
        (bits,), (offset,) = struct.unpack_from(f"{order}h", head, 72), struct.unpack_from(f"{order}f", head, 108)
    elif order is not None and head[4:8] == b"n+2\0" and len(head) >= _HEADER_BYTES:
        dimensions = struct.unpack_from(f"{order}8q", head, 16)
        (bits,), (offset,) = struct.unpack_from(f"{order}h", head, 14), struct.unpack_from(f"{order}q", head, 168)
    else:
        raise _wrong(url, "something else under its name")
    if not (1 <= dimensions[0] <= 7 and min(dimensions[1 : dimensions[0] + 1]) > 0 and bits > 0 and offset >= 0):
        raise _wrong(url, "one whose header makes no sense")
    voxels: int = prod(dimensions[1 : dimensions[0] + 1])
    return int(offset) + voxels * int(bits) // 8


def _wrong(url: str, got: str) -> RemoteError:
    return RemoteError.wrong_answer(url, expected="a NIfTI volume", got=got)
