"""Volumes in files of NumPy: .npy, and the arrays of .npz archives."""

from __future__ import annotations

import mmap
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from ....domain.errors import InputError
from ....domain.reading import Reading
from ....domain.stored_array import StoredArray
from ....domain.volume_names import NUMPY, VolumeNames
from ...arrays import ArraySource, check_voxels, real_dtype
from ...disk import CHUNK_BYTES, scratch_folder
from ...read_only import ReadOnlyStore, listed, split_inside
from ...stored_files import MappedArray, StoredFile, check_length, map_file, open_file, sha256, unpack

_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
_MEMBER = ".npy"
_DIMENSIONS = range(2, 6)
_AGAIN = "write it again with numpy.save"


@dataclass(frozen=True)
class _Header:
    """What the header of an array states; ``offset`` is where its values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    offset: int

    @property
    def end(self) -> int:
        return self.offset + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


class NumpyStore(ReadOnlyStore):
    """Volumes in files of NumPy, which state neither axes nor voxel sizes.

    A reference is a path, or ``FILE.npz:/NAME`` for one of several arrays. Arrays of Python objects are never loaded.

    Args:
        scratch: folder for unpacked arrays of archives; they have no name and vanish when closed.
        max_voxels: the most voxels, all channels counted, that a volume may have to be opened.
    """

    names = VolumeNames((NUMPY,))

    def __init__(self, scratch: Path | None = None, max_voxels: int = 2**33) -> None:
        super().__init__(max_voxels)
        self._scratch = scratch

    def recognises(self, reference: str) -> bool:
        """Return whether a file begins as one of NumPy, or is a zip of such files alone."""
        path = split_inside(reference)[0]
        try:
            with path.open("rb") as file:
                head = file.read(len(_MAGIC))
            if not head.startswith(_ZIP_MAGIC):
                return head == _MAGIC
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            return False
        return bool(names) and all(name.endswith(_MEMBER) for name in names)

    def open(self, reference: str, reading: Reading | None = None) -> ArraySource:
        """Open an array for reading; see VolumeStore.open."""
        reading = reading or Reading()
        path, inside = split_inside(reference)
        name = (reading.series or "").strip("/") or inside
        subject = f"{path.name}:/{name}" if name else path.name or reference
        with ExitStack() as stack:
            file = open_file(path, subject)
            stack.callback(file.close)
            with _reading_errors(subject), os.fdopen(os.dup(file.descriptor), "rb") as content:
                content.seek(0)
                if content.read(4) == _ZIP_MAGIC:
                    with zipfile.ZipFile(content) as archive:
                        return self._open_member(archive, name, file, reading, subject, stack)
                content.seek(0)
                header = _header(content, subject)
            check_length(file.size, header.end, subject)
            view = _stored(header, subject).view(reading, subject)
            check_voxels(view, self.max_voxels, subject)
            mapped = map_file(file.descriptor, header.end, subject)
            return _source(view, header, mapped, file, stack)

    def _open_member(
        self,
        archive: zipfile.ZipFile,
        name: str,
        file: StoredFile,
        reading: Reading,
        subject: str,
        stack: ExitStack,
    ) -> ArraySource:
        member = _member(archive, name, subject)
        with archive.open(member) as content:
            header = _header(content, subject)
            check_length(member.file_size, header.end, subject)
            view = replace(_stored(header, subject), choices=("series",)).view(reading, subject)
            check_voxels(view, self.max_voxels, subject)  # before anything is unpacked
            values = _Header(header.shape, header.dtype, header.is_fortran, 0)
            chunks = iter(lambda: content.read(CHUNK_BYTES), b"")
            descriptor = unpack(chunks, values.end, scratch_folder(self._scratch), subject)
        try:
            mapped = map_file(descriptor, values.end, subject)
        finally:
            os.close(descriptor)
        return _source(view, values, mapped, file, stack)


def _source(view: Any, header: _Header, mapped: mmap.mmap, file: StoredFile, stack: ExitStack) -> ArraySource:
    order: Literal["C", "F"] = "F" if header.is_fortran else "C"
    values = MappedArray(mapped, header.shape, header.dtype, offset=header.offset, order=order)
    stack.callback(values.close)
    return ArraySource(view, values.fetch, lambda: sha256([file.descriptor]), stack.pop_all().close)


def _header(content: IO[bytes], subject: str) -> _Header:
    """Read the header of an array. Raises InputError, also for Python objects and records."""
    version = np.lib.format.read_magic(content)
    read = np.lib.format.read_array_header_2_0 if version[0] > 1 else np.lib.format.read_array_header_1_0
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # Python 2 wrote it
            shape, is_fortran, dtype = read(content)
    except Exception as error:  # noqa: BLE001 - the header is Python code to numpy: its parser has many errors
        got = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(subject, expected="a header of NumPy", got=got, do=_AGAIN) from None
    if len(shape) not in _DIMENSIONS:
        raise InputError(subject, expected="2 to 5 dimensions", got=str(len(shape)), do="reshape the array")
    if dtype.hasobject:
        do = "convert its array to integers, float32 or float64"
        raise InputError(subject, expected="real numbers", got="Python objects", do=do)
    return _Header(shape, dtype, is_fortran, content.tell())


def _stored(header: _Header, subject: str) -> StoredArray:
    plane = [1] * len(header.shape)
    ends = (0, 1) if header.is_fortran else (-1, -2)
    for axis in ends:
        plane[axis] = header.shape[axis]
    return StoredArray(header.shape, real_dtype(header.dtype, subject), chunk=tuple(plane))


def _member(archive: zipfile.ZipFile, name: str, subject: str) -> zipfile.ZipInfo:
    members = {member.filename.removesuffix(_MEMBER): member for member in archive.infolist()}
    if not name and len(members) == 1:
        return next(iter(members.values()))
    if name in members:
        return members[name]
    do = f"name one with `series`, e.g. {next(iter(members), '')}"
    raise InputError(subject, expected=f"one of the arrays {listed(list(members))}", got=name or "several", do=do)


@contextmanager
def _reading_errors(subject: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        line = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(subject, expected="an intact file of NumPy", got=line, do=_AGAIN) from None
    except (NotImplementedError, RuntimeError) as error:  # a password, or another way of compression
        raise InputError(subject, expected="a plain archive", got=str(error)[:120], do=_AGAIN + "z") from None
