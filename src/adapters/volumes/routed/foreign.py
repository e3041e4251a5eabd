"""Kinds of files and folders that no store reads, with advice for converting them."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ....domain.volume_names import GZIP_MAGIC, OME_ZARR, PACKED, PLAIN, ZARR_FILES

_HEAD_BYTES = 1024
_MOST_ENTRIES = 100

_NIBABEL = (
    "convert it with nibabel: i = nibabel.load('{name}'); "
    "nibabel.save(nibabel.Nifti1Image(i.dataobj, i.affine), '{stem}" + PACKED + "')"
)


_SEVERAL = "an OME-Zarr folder without an image of its own", "name an image in it, e.g. plate.zarr/A/1/0"
_PICTURE = "give the volume that it was made from, or stack pictures of slices into one"
# Offset and content (or contents) of a file's magic, its kind, and advice.
_KINDS: tuple[tuple[int, bytes | tuple[bytes, ...], str, str], ...] = (
    (106, b"minc-2.0", "a MINC file", _NIBABEL),  # in HDF5; 106 or 720 by the library's version
    (720, b"minc-2.0", "a MINC file", _NIBABEL),
    (0, b"CDF", "a netCDF or MINC file", _NIBABEL),
    (0, b"BZh", "a file packed with bzip2", "unpack it: bzip2 -dc '{name}' > unpacked"),
    (0, b"\xfd7zXZ\0", "a file packed with xz", "unpack it: xz -dc '{name}' > unpacked"),
    (0, b"\x28\xb5\x2f\xfd", "a file packed with Zstandard", "unpack it: zstd -dc '{name}' > unpacked"),
    (0, GZIP_MAGIC, "a file packed with gzip twice", "unpack it once: gzip -dc '{name}' > unpacked"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it: unzip '{name}'"),
    (257, b"ustar", "a tar archive", "unpack it: tar xf '{name}'"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file", "fetch it: git lfs pull -I '{name}'"),
    (0, b"/annex/objects/", "a pointer of git-annex, not the file", "fetch it: git annex get '{name}'"),
    (0, b"\x89PNG", "a PNG picture", _PICTURE),
    (0, b"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (0, b"GIF8", "a GIF picture", _PICTURE),
    (0, b"BM", "a BMP picture", _PICTURE),
    (0, b"%PDF", "a PDF document", _PICTURE),
)


def describe(reference: str) -> tuple[str, str] | None:
    """Return the kind of a file or folder, and advice; None for an unknown kind."""
    path = Path(reference)
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_symlink() and not path.exists():
            return f"a link to {path.readlink()}, which is missing", f"fetch it: git annex get '{path.name}'"
        if not path.is_file():
            return None
        head = _head(path)
    except (OSError, ValueError):
        return None
    if head.lstrip()[:1] == b"<":
        is_page = b"<html" in head.lower() or b"<!doctype html" in head.lower()
        what = "a web page" if is_page else "an XML file"
        return what, "download the volume itself: a link may ask for a login first" if is_page else _PICTURE
    for position, start, what, do in _KINDS:
        if head.startswith(start, position):
            name = path.name
            return what, do.replace("{name}", name).replace("{stem}", name.split(".")[0] or "volume")
    return None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[:2] != GZIP_MAGIC:
        return head
    try:
        with gzip.open(path) as file:
            return file.read(_HEAD_BYTES)
    except (EOFError, zlib.error):
        return b""


def _folder(path: Path) -> tuple[str, str] | None:
    name = path.name
    if any((path / marker).is_file() for marker in ZARR_FILES):
        return None if name.lower().endswith(OME_ZARR.folders) else _SEVERAL
    for entry in _files(path):
        if entry.name.lower().endswith((PLAIN, PACKED)):
            return "a folder of volumes", f"name one of them, e.g. {entry.name}, or segment all: voxport batch"
    return None


def _files(path: Path) -> Iterator[Path]:
    with os.scandir(path) as entries:
        yield from (Path(entry.path) for entry in islice(entries, _MOST_ENTRIES) if entry.is_file())
