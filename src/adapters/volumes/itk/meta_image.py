"""Headers of MetaImage files (MHA, MHD). Tags: https://itk.org/Wiki/ITK/MetaIO/Documentation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....domain.errors import InputError
from ....domain.geometry.grid import FloatArray
from ....domain.stored_array import StoredArray
from .layout import DAMAGED, LPS, Encoding, Layout, beside, edges, numbered, numbers, placed, slabs, third, whole

MAGIC = re.compile(rb"\s*(ObjectType|NDims)[ \t]*=")
_LAST = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n?", re.MULTILINE)
TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
    **{"MET_LONG": "i4", "MET_ULONG": "u4"},
}
_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
_ORIGINS = ("Offset", "Position", "Origin")
_SIZES = ("ElementSpacing", "ElementSize")


def length(block: bytes) -> int | None:
    """Return the bytes of a header; None where ``block`` does not hold it whole, or it ends with the file."""
    end = _LAST.search(block)
    ends = end is not None and end.group().endswith(b"\n") and end.group().split()[-1].upper() == b"LOCAL"
    return end.end() if end and ends else None


def read(block: bytes, path: Path, subject: str) -> Layout:
    """Read a header, up to ``ElementDataFile`` or, where that is a list, to the end of the file. Raises InputError."""
    tags, names = _tags(block)
    kind = tags.get("ObjectType", "Image")
    if kind != "Image":
        raise InputError(subject, expected="an image", got=f"a MetaIO object of type {kind[:40]}", do="give the volume")
    count = whole(tags.get("NDims", ""), 1, "NDims", subject)[0]
    if not 2 <= count <= 4:
        do = "split it into 3-D volumes"
        raise InputError(subject, expected="2, 3 or 4 axes (NDims)", got=f"{count}", do=do)
    shape, axes = edges(tags.get("DimSize", ""), count, "DimSize", subject), "XYZ?"[:count]
    channels = edges(tags.get("ElementNumberOfChannels", "1"), 1, "ElementNumberOfChannels", subject)[0]
    if channels > 1:
        shape, axes = (channels, *shape), "C" + axes
    stored, encoding = _stored(tags, subject)
    affine, unstated, source = _placed(tags, count, subject)
    files, offset = _files(tags, names, path, len(block), subject)
    array = StoredArray(
        shape,
        stored.newbyteorder("="),
        axes,
        spacing=dict.fromkeys(unstated, math.nan),
        sources=dict.fromkeys("XYZ"[:count], source),
        affine=affine,
        chunk=slabs(shape, axes),
    )
    return Layout(array, stored, encoding, files, offset)


def _tags(block: bytes) -> tuple[dict[str, str], list[str]]:
    """Return the tags by name, and the lines after the last one, which are names of files where it is a list."""
    tags: dict[str, str] = {}
    lines = block.decode("utf-8", "replace").splitlines()
    for at, line in enumerate(lines):
        name, mark, value = line.partition("=")
        if mark:
            tags.setdefault(name.strip(), value.strip())
        if name.strip() == "ElementDataFile":
            return tags, [name.strip() for name in lines[at + 1 :] if name.strip()]
    return tags, []


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    """Return the first of some tags that there is, and its name; the first name and no text where none is."""
    name = next((name for name in names if name in tags), names[0])
    return name, tags.get(name, "")


def _is_true(tags: Mapping[str, str], *names: str) -> bool:
    return _first(tags, names)[1][:1].lower() in ("t", "1", "y")


def _stored(tags: Mapping[str, str], subject: str) -> tuple[np.dtype[Any], Encoding]:
    name = tags.get("ElementType", "none")
    if name.removesuffix("_ARRAY") not in TYPES:
        do = "convert it to a real type, e.g. one file for each component"
        raise InputError(subject, expected="one real number a voxel", got=f"the type {name[:40]}", do=do)
    dtype = np.dtype(TYPES[name.removesuffix("_ARRAY")])
    if "BinaryData" in tags and not _is_true(tags, "BinaryData"):
        return dtype, "text"
    is_big = _is_true(tags, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    return dtype.newbyteorder(">" if is_big else "<"), "zlib" if _is_true(tags, "CompressedData") else "raw"


def _placed(tags: Mapping[str, str], count: int, subject: str) -> tuple[FloatArray, tuple[str, ...], str]:
    """Return the RAS+ affine, letters of the axes without a voxel size, and the tag that has the sizes."""
    name, text = _first(tags, _DIRECTIONS)
    rows = np.array(numbers(text, count * count, name, subject)).reshape(count, count) if text else np.eye(count)
    columns = np.eye(3)
    used = min(count, 3)
    columns[:used, :used] = rows.T[:used, :used]  # a row of the file is the direction of an axis
    if count == 2:
        columns[:, 2] = third(columns[:, :2])
    name, text = _first(tags, _ORIGINS)
    origin = (*(numbers(text, count, name, subject) if text else (0.0,) * count), 0.0)[:3]
    name, text = _first(tags, _SIZES)
    sizes = numbers(text, count, name, subject)[:3] if text else ()
    if not np.all(np.isfinite(columns)) or not all(map(math.isfinite, origin)):
        got = "values that are not finite"
        raise InputError(subject, expected="finite directions and a finite offset", got=got, do=DAMAGED)
    unstated = [letter for at, letter in enumerate("XYZ") if at >= len(sizes) or not 0 < sizes[at] < math.inf]
    for at, letter in enumerate("XYZ"):
        columns[:, at] *= 1.0 if letter in unstated else sizes[at]
    return placed(columns, origin, LPS), tuple(unstated), name


def _files(
    tags: Mapping[str, str], names: list[str], path: Path, end: int, subject: str
) -> tuple[tuple[Path, ...], int]:
    """Return the files of voxels, and the bytes before the voxels in each."""
    text = tags.get("ElementDataFile", "")
    words = text.split()
    if not words:
        raise InputError(subject, expected="the file of its voxels (ElementDataFile)", got="none", do=DAMAGED)
    if words[0].upper() == "LOCAL":
        return (path,), end
    offset = whole(tags.get("HeaderSize", "0"), 1, "HeaderSize", subject)[0]
    if offset < -1:
        raise InputError(subject, expected="a HeaderSize of -1 or more", got=f"{offset}", do=DAMAGED)
    if words[0].upper() == "LIST":
        if not names:
            raise InputError(subject, expected="names of files after ElementDataFile = LIST", got="none", do=DAMAGED)
        found = names
    elif "%" in words[0] and len(words) >= 3:
        found = numbered(words[0], whole(" ".join(words[1:4]), len(words[1:4]), "ElementDataFile", subject), subject)
    else:
        found = [text]
    return tuple(beside(path, name, subject) for name in found), offset
