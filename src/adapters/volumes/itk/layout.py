"""How the voxels of a volume lie in its files, whichever of the two formats states it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ....domain.errors import InputError
from ....domain.geometry.grid import FloatArray
from ....domain.stored_array import StoredArray

Encoding = Literal["raw", "gzip", "zlib", "bzip2", "text"]
# World axes of ITK point to the left, to the back and up.
LPS = np.array([-1.0, -1.0, 1.0])
DAMAGED = "write the file again: its header is damaged"
_MOST_FILES = 100_000
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_PATTERN = re.compile(r"[^%]*%0?\d*[dui][^%]*")


@dataclass(frozen=True)
class Layout:
    """Voxels as they are stored.

    Args:
        array: what the header states; its first axis runs fastest.
        stored: type of a value, in its byte order.
        encoding: of the voxels.
        files: that hold the voxels, one after the other; the header's own file, or files beside it.
        offset: bytes before the voxels in each file; -1 where they are the file's last bytes.
        lines: lines to skip after the offset.
        skip: bytes to skip after that, of the decoded voxels.
    """

    array: StoredArray
    stored: np.dtype[Any]
    encoding: Encoding
    files: tuple[Path, ...]
    offset: int = 0
    lines: int = 0
    skip: int = 0

    @property
    def size(self) -> int:
        """Bytes of all decoded voxels."""
        return math.prod(self.array.shape) * self.stored.itemsize


def beside(header: Path, name: str, subject: str) -> Path:
    """Return the path of a file of voxels that a header names. Raises InputError for a name that leaves the folder."""
    plain = name.removeprefix("./")
    if not plain or plain in (".", "..") or any(mark in plain for mark in "/\\\0"):
        do = "move it beside the header, and name it there without a folder"
        raise InputError(subject, expected="voxels in a file beside the header", got=name[:80] or "no name", do=do)
    return header.with_name(plain)


def numbered(pattern: str, numbers: Sequence[int], subject: str) -> list[str]:
    """Return names by a pattern of C's printf, e.g. ``slice%03d.raw``, and first, last and step of its numbers."""
    first, last, step = (*numbers, 1)[:3]
    if not _PATTERN.fullmatch(pattern) or step == 0 or not 0 <= (last - first) // step < _MOST_FILES:
        got = f"{pattern[:40]} {' '.join(map(str, numbers))}"
        raise InputError(subject, expected="a pattern such as slice%03d.raw 1 20 1", got=got, do=DAMAGED)
    return [pattern % number for number in range(first, last + (1 if step > 0 else -1), step)]


def numbers(text: str, count: int, what: str, subject: str) -> tuple[float, ...]:
    """Return the numbers in a field. Raises InputError unless there are ``count`` of them."""
    try:
        found = tuple(float(word) for word in text.split())
    except ValueError:
        found = ()
    if len(found) != count:
        raise InputError(subject, expected=f"{count} numbers ({what})", got=text[:60] or "none", do=DAMAGED)
    return found


def whole(text: str, count: int, what: str, subject: str) -> tuple[int, ...]:
    """Return the whole numbers in a field. Raises InputError unless there are ``count`` of them."""
    words = text.split()
    if len(words) != count or not all(_WHOLE.fullmatch(word) for word in words):
        raise InputError(subject, expected=f"{count} whole numbers ({what})", got=text[:60] or "none", do=DAMAGED)
    return tuple(map(int, words))


def edges(text: str, count: int, what: str, subject: str) -> tuple[int, ...]:
    """Return the edges in a field. Raises InputError unless there are ``count`` positive whole numbers."""
    found = whole(text, count, what, subject)
    if min(found) < 1:
        raise InputError(subject, expected="axes of at least one voxel each", got=text[:60], do=DAMAGED)
    return found


def placed(columns: FloatArray, origin: Sequence[float], signs: FloatArray) -> FloatArray:
    """Return the RAS+ affine of axes as the columns ``(3, 3)`` in world axes that ``signs`` turns to RAS+."""
    affine = np.eye(4)
    affine[:3, :3] = columns * signs[:, np.newaxis]
    affine[:3, 3] = np.asarray(origin) * signs
    return affine + 0.0  # -0.0 becomes 0.0


def third(columns: FloatArray) -> FloatArray:
    """Return the direction at right angles to the first two columns ``(3, 2)``, of length 1 where it can be."""
    normal = np.cross(columns[:, 0], columns[:, 1])
    length = float(np.linalg.norm(normal))
    return normal / length if math.isfinite(length) and length > 0 else np.array([0.0, 0.0, 1.0])


def slabs(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    """Return the chunk of an array whose first axis runs fastest: one index along the last axis of space, or after."""
    last = max((at for at, letter in enumerate(axes) if letter in "XYZ"), default=0)
    return tuple(edge if at < last else 1 for at, edge in enumerate(shape))
