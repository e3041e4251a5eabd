"""Headers of NRRD files. Fields: https://teem.sourceforge.net/nrrd/format.html."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....domain.errors import InputError
from ....domain.geometry.grid import FloatArray
from ....domain.reading import LENGTH_UNITS, length_unit
from ....domain.stored_array import StoredArray
from .layout import DAMAGED, LPS, Encoding, Layout, beside, edges, numbered, numbers, placed, slabs, third, whole

MAGIC = re.compile(rb"NRRD000\d\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_MOST_AXES = 16  # NRRD_DIM_MAX
_TYPES = {
    name: dtype
    for dtype, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
_ENCODINGS: dict[str, Encoding] = {
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    **dict.fromkeys(("gz", "gzip"), "gzip"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
    "raw": "raw",
}
_SIGNS = {
    **dict.fromkeys(("right-anterior-superior", "ras"), np.array([1.0, 1.0, 1.0])),
    **dict.fromkeys(("left-anterior-superior", "las"), np.array([-1.0, 1.0, 1.0])),
    **dict.fromkeys(("left-posterior-superior", "lps"), LPS),
}
_TIMES = {f"{name}{end}": name for name in _SIGNS for end in ("-time", "t")}
_SPACE_KINDS = ("domain", "space")
_CHANNEL_KINDS = (
    *("list", "vector", "covariant-vector", "point", "normal", "gradient", "covector"),
    *("2-vector", "3-vector", "4-vector", "3-gradient", "3-normal"),
)
_COLOUR_KINDS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color", "3-color", "4-color")


def length(block: bytes) -> int | None:
    """Return the bytes of a header and the empty line after it; None where ``block`` does not hold it whole."""
    end = _END.search(block)
    return end.end() if end else None


@dataclass(frozen=True)
class _Space:
    """What a header states of its axes in space: a letter each, RAS+ affine, and voxel sizes that it does not state."""

    axes: str
    affine: FloatArray | None = None
    unstated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(block: bytes, path: Path, subject: str) -> Layout:
    """Read a header, up to its empty line or the end of a detached one. Raises InputError."""
    fields, names = _fields(block)
    count = edges(fields.get("dimension", ""), 1, "dimension", subject)[0]
    if count > _MOST_AXES:
        raise InputError(subject, expected=f"at most {_MOST_AXES} axes", got=f"{count}", do=DAMAGED)
    shape = edges(fields.get("sizes", ""), count, "sizes", subject)
    encoding = _ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None:
        expected = f"an encoding of {', '.join(_ENCODINGS)}"
        do = "write it again with gzip or raw, e.g. with SimpleITK"
        raise InputError(subject, expected=expected, got=fields.get("encoding", "none")[:40] or "none", do=do)
    stored = _dtype(fields, encoding, subject)
    space = _space(fields, shape, subject)
    unit, factor, conflicts = _unit(fields, space.axes)
    if space.affine is not None and factor != 1.0:
        space.affine[:3] *= factor
    array = StoredArray(
        shape,
        stored.newbyteorder("="),
        space.axes,
        spacing=dict.fromkeys(space.unstated, math.nan),
        unit=unit,
        sources=_sources(fields, space),
        affine=space.affine,
        chunk=slabs(shape, space.axes),
        conflicts=conflicts,
        notes=space.notes,
    )
    files, offset = _files(fields, names, path, subject), 0
    if not files:
        files, offset = (path,), len(block)
    lines, skip = (whole(fields.get(name, "0"), 1, name, subject)[0] for name in ("line skip", "byte skip"))
    if skip == -1 and encoding == "raw":
        offset, skip = -1, 0
    if min(lines, skip) < 0:
        raise InputError(subject, expected="bytes and lines to skip", got=f"{lines} lines, {skip} bytes", do=DAMAGED)
    return Layout(array, stored, encoding, files, offset, lines, skip)


def _fields(block: bytes) -> tuple[dict[str, str], list[str]]:
    """Return fields and key/value pairs by name, and the lines after ``data file: LIST``, which ends a header."""
    fields: dict[str, str] = {}
    lines = block.decode("utf-8", "replace").splitlines()[1:]
    for at, line in enumerate(lines):
        if line.startswith("#") or not line.strip():
            continue
        name, mark, value = line.partition(":")
        if not mark:
            continue
        if value.startswith("="):
            fields.setdefault(f"={name}", value[1:].strip())
            continue
        name = name.strip().lower()
        name = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}.get(name, name)
        fields.setdefault(name, value.strip())
        if name == "data file" and value.split()[:1] == ["LIST"]:
            return fields, [name.strip() for name in lines[at + 1 :] if name.strip()]
    return fields, []


def _dtype(fields: dict[str, str], encoding: Encoding, subject: str) -> np.dtype[Any]:
    name = " ".join(fields.get("type", "").lower().split())
    if name not in _TYPES:
        do = "convert it to a real type, e.g. one file for each component"
        raise InputError(subject, expected="one real number a voxel", got=f"the type {name[:40] or 'none'}", do=do)
    dtype = np.dtype(_TYPES[name])
    if dtype.itemsize == 1 or encoding == "text":
        return dtype
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None:
        got = fields.get("endian", "none")[:20] or "none"
        do = "add it to the header, e.g. endian: little"
        raise InputError(subject, expected="a byte order (endian), little or big", got=got, do=do)
    return dtype.newbyteorder(order)  # type: ignore[arg-type]


def _space(fields: dict[str, str], shape: tuple[int, ...], subject: str) -> _Space:
    """Return the meaning of the axes, and their directions."""
    count = len(shape)
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()]
    kinds += [""] * (count - len(kinds))
    vectors = _vectors(fields.get("space directions", ""), subject)
    name = fields.get("space", "").lower().replace("_", "-")
    signs = _SIGNS.get(_TIMES.get(name, name))
    spacings = None if "spacings" not in fields else numbers(fields["spacings"], count, "spacings", subject)
    if vectors and len(vectors) != count:
        got = f"{len(vectors)} (space directions)"
        raise InputError(subject, expected=f"a direction or none for each of {count} axes", got=got, do=DAMAGED)
    if vectors:
        spatial = [at for at, vector in enumerate(vectors) if vector is not None]
        if name in _TIMES:
            spatial = [at for at in spatial if kinds[at] != "time" and np.any((vectors[at] or [])[:3])]
    else:
        spatial = [at for at, kind in enumerate(kinds[:count]) if kind in _SPACE_KINDS]
        if not spatial and count <= 3:
            spatial = [at for at, kind in enumerate(kinds[:count]) if kind in ("", "???", "none")]
    axes = _letters(fields, kinds[:count], spatial)
    if not spatial:
        return _Space("" if not any(kinds) else axes)
    columns, unstated = _columns(vectors, spacings, spatial)
    origin = _origin(fields, subject)
    notes: tuple[str, ...] = ()
    if signs is None:
        notes = (f"{subject} names no anatomical directions; its axes are taken as left, posterior and superior",)
    affine = placed(columns, (0.0, 0.0, 0.0) if origin is None else origin, LPS if signs is None else signs)
    return _Space(axes, affine, unstated, notes)


def _letters(fields: dict[str, str], kinds: list[str], spatial: list[int]) -> str:
    """Return a letter for each axis; ``?`` for one of another meaning, or none."""
    letters = ["?"] * len(kinds)
    for letter, at in zip("XYZ", spatial, strict=False):
        letters[at] = letter
    for at, kind in enumerate(kinds):
        if at in spatial:
            continue
        is_time = kind == "time" or fields.get(f"=axis {at} index type", "").lower() == "time"
        letter = "T" if is_time else "C" if kind in _CHANNEL_KINDS else "S" if kind in _COLOUR_KINDS else "?"
        letters[at] = letter if letter not in letters else "?"
    return "".join(letters)


def _vectors(text: str, subject: str) -> list[tuple[float, ...] | None]:
    """Return the vectors in a field, None for the word none."""
    found: list[tuple[float, ...] | None] = []
    for word in re.findall(r"none|\([^)]*\)|[^\s()]+", text, re.IGNORECASE):
        if word.lower() == "none":
            found.append(None)
            continue
        parts = word.strip("()").replace(",", " ")
        vector = numbers(parts, len(parts.split()), "vector", subject)
        if not word.startswith("(") or not 2 <= len(vector) <= 4:
            raise InputError(subject, expected="vectors such as (1,0,0)", got=text[:60], do=DAMAGED)
        found.append(vector)
    return found


def _columns(
    vectors: list[tuple[float, ...] | None], spacings: tuple[float, ...] | None, spatial: list[int]
) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the first three axes of space as columns, and the letters of those without a voxel size."""
    columns, unstated = np.eye(3), []
    for column, letter in enumerate("XYZ"):
        if column >= len(spatial):
            unstated.append(letter)
            if column == 2:
                columns[:, 2] = third(columns[:, :2])
            continue
        vector = vectors[spatial[column]] if vectors else None
        if vector is not None:
            columns[:, column] = (*vector, 0.0)[:3]
            if np.all(np.isfinite(columns[:, column])) and np.any(columns[:, column]):
                continue
            columns[:, column] = np.eye(3)[:, column]
            unstated.append(letter)
        elif spacings is not None and math.isfinite(spacings[spatial[column]]) and spacings[spatial[column]] > 0:
            columns[:, column] *= spacings[spatial[column]]
        else:
            unstated.append(letter)
    return columns, tuple(unstated)


def _origin(fields: dict[str, str], subject: str) -> tuple[float, ...] | None:
    found = _vectors(fields.get("space origin", ""), subject)
    if not found or found[0] is None or not all(map(math.isfinite, found[0])):
        return None
    return (*found[0], 0.0)[:3]


def _unit(fields: dict[str, str], axes: str) -> tuple[str, float, tuple[str, ...]]:
    """Return the unit, the factor to it, and units that disagree."""
    words = re.findall(r'"([^"]*)"', fields.get("space units", ""))[:3]
    if not words:
        each = re.findall(r'"([^"]*)"', fields.get("units", ""))
        words = [word for word, letter in zip(each, axes, strict=False) if letter in "XYZ"]
    units = {length_unit(word) for word in words}
    only = units.pop() if len(units) == 1 else None
    if only is None:
        known = [word for word in dict.fromkeys(words) if length_unit(word)]
        return "unknown", 1.0, tuple(f"lengths in {word}" for word in known) if len(known) > 1 else ()
    return *LENGTH_UNITS[only], ()


def _sources(fields: dict[str, str], space: _Space) -> dict[str, str]:
    name = "space directions" if "space directions" in fields else "spacings"
    return {letter: name for letter in "XYZ" if letter in space.axes}


def _files(fields: dict[str, str], names: list[str], path: Path, subject: str) -> tuple[Path, ...]:
    """Return the files of voxels that a header names; none where they follow it."""
    text = fields.get("data file", "")
    if not text:
        return ()
    words = text.split()
    if words[0] == "LIST":
        found = names
        if not found:
            raise InputError(subject, expected="names of files after data file: LIST", got="none", do=DAMAGED)
    elif "%" in words[0] and len(words) >= 4:
        found = numbered(words[0], whole(" ".join(words[1:4]), 3, "data file", subject), subject)
    else:
        found = [text]
    return tuple(beside(path, name, subject) for name in found)
