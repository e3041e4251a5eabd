"""Files of DICOM images: one file, a folder, or a zip of one."""

from __future__ import annotations

import io
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from ....domain.errors import InputError
from ...disk import no_space, unlinked_file

MAGIC_AT, MAGIC = 128, b"DICM"
_ZIP = b"PK\x03\x04"
_MOST_FILES = 100_000
# A zip that grows more than this is a bomb; a small one may. Slices seldom shrink to a tenth.
_MOST_GROWTH, _ALWAYS_BYTES, _MOST_BYTES = 200, 2**27, 2**38
_HIDDEN = ("__MACOSX",)


@dataclass(frozen=True)
class Part:
    """One DICOM file: its name below the folder, and where its bytes are.

    ``descriptor`` is that of the file that holds the bytes from ``start`` on; without it they are at ``path``.
    """

    name: str
    size: int
    path: Path | None = None
    descriptor: int = -1
    start: int = 0

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes; fewer at the end of the file. Several threads may read at once."""
        length = max(0, min(length, self.size - offset))
        if self.path is None:
            return os.pread(self.descriptor, length, self.start + offset)
        with self.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)

    def stream(self) -> BinaryIO:
        """Open the bytes as a stream; close it."""
        if self.path is not None:
            return self.path.open("rb")
        return io.BufferedReader(_Window(self))


class _Window(io.RawIOBase):
    """The bytes of one part as a stream."""

    def __init__(self, part: Part) -> None:
        self._part, self._at = part, 0
        self.name = part.name  # pydicom asks for it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._part.size}[whence]
        if base + offset < 0:
            raise ValueError(f"expected a position from 0, got {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        content = self._part.read(self._at, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def recognised(path: Path) -> bool:
    """Return whether a path is a DICOM file, a folder with one in it (not deeper), or a zip with one."""
    try:
        if path.is_dir():
            return any(_is_dicom(file) for file in _shallow(path))
        if not path.is_file():
            return False
        return _is_dicom(path) or (_starts(path, 0, _ZIP) and _zip_holds(path))
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError):
        return False


def find_parts(path: Path, scratch: Path, subject: str) -> tuple[list[Part], int]:
    """Return the DICOM files under a path, in the order of their names, and a descriptor to close; -1 for none.

    The files of a zip are unpacked into an unlinked file in ``scratch``.

    Raises:
        InputError: nothing is there, it cannot be read, or no file is DICOM.
        LimitError: ``scratch`` has too little room.
    """
    descriptor = -1
    with reading_errors(subject):
        if path.is_dir():
            files = [file for file in _deep(path, subject) if _is_dicom(file)]
            parts = [Part(file.relative_to(path).as_posix(), file.stat().st_size, path=file) for file in files]
        elif not stat.S_ISREG(path.stat().st_mode):
            raise InputError(subject, expected="a file or folder", got="neither", do="name the DICOM file itself")
        elif _starts(path, 0, _ZIP):
            parts, descriptor = _unpacked(path, scratch, subject)
        else:
            parts = [Part(path.name, path.stat().st_size, path=path)] if _is_dicom(path) else []
    if not parts and path.is_dir():
        do = "name the volume itself, or the folder of a DICOM series"
        raise InputError(subject, expected="a volume", got="a folder without DICOM files", do=do)
    if not parts:
        do = "add its file header, e.g. with dcmtk: dcmconv IN OUT"
        raise InputError(subject, expected="a DICOM file with DICM at byte 128", got="none", do=do)
    return parts, descriptor


@contextmanager
def reading_errors(subject: str) -> Iterator[None]:
    """Raise the errors of files and zips as InputErrors about a subject."""
    do = "copy or download it again"
    try:
        yield
    except FileNotFoundError:
        raise InputError(subject, expected="a file or folder", got="nothing there", do="check the path") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        got = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(subject, expected="a whole zip archive", got=got, do=do) from None
    except (OSError, ValueError) as error:
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(subject, expected="readable files", got=got, do="check path and permissions") from None


def _starts(path: Path, offset: int, magic: bytes) -> bool:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), len(magic), offset) == magic


def _is_dicom(path: Path) -> bool:
    return path.is_file() and _starts(path, MAGIC_AT, MAGIC)


def _may_be_image(name: str) -> bool:
    return not name.startswith(".") and name != "DICOMDIR"


def _shallow(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file() and _may_be_image(entry.name):
                yield Path(entry.path)


def _deep(folder: Path, subject: str) -> Sequence[Path]:
    found: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _HIDDEN)
        found.extend(Path(where, name) for name in sorted(names) if _may_be_image(name))
        if len(found) > _MOST_FILES:
            do = "name the folder of one series"
            raise InputError(subject, expected=f"at most {_MOST_FILES} files", got="more", do=do)
    return found


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    return [m for m in members if not any(p.startswith(".") or p in _HIDDEN for p in PurePath(m.filename).parts)]


def _member_is_dicom(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if not _may_be_image(PurePath(member.filename).name) or member.file_size <= MAGIC_AT:
        return False
    with archive.open(member) as stream:
        return stream.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def _zip_holds(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(_member_is_dicom(archive, member) for member in _members(archive)[:_MOST_FILES])


def _unpacked(path: Path, scratch: Path, subject: str) -> tuple[list[Part], int]:
    """Unpack the DICOM files of a zip, none by name, into one file without a name."""
    do = "unpack it by hand and name the folder"
    with zipfile.ZipFile(path) as archive:
        members = _members(archive)
        for member in members:
            if member.flag_bits & 1 or stat.S_ISLNK(member.external_attr >> 16):
                got = "encrypted files" if member.flag_bits & 1 else "links"
                raise InputError(subject, expected="a zip of plain files", got=got, do=do)
        total, packed = sum(member.file_size for member in members), path.stat().st_size
        if len(members) > _MOST_FILES or total > min(_MOST_BYTES, max(_ALWAYS_BYTES, packed * _MOST_GROWTH)):
            got = f"{len(members)} files of {total} bytes in a zip of {packed}"
            raise InputError(subject, expected="a zip of DICOM images", got=got, do=do)
        members = sorted((m for m in members if _member_is_dicom(archive, m)), key=lambda member: member.filename)
        size = sum(member.file_size for member in members)
        expected = f"room for {size} bytes to unpack the volume"
        with unlinked_file(scratch, size, expected) as spool:
            status = os.statvfs(spool.fileno())
            if (free := status.f_bavail * status.f_frsize) < size:
                raise no_space(scratch, expected, f"{free}")
            parts = []
            for member in members:
                start = spool.tell()
                with archive.open(member) as content:  # zipfile never gives more than the size declared
                    shutil.copyfileobj(content, spool)
                parts.append((member.filename, start, spool.tell() - start))
            descriptor = os.dup(spool.fileno())
    return [Part(name, size, descriptor=descriptor, start=start) for name, start, size in parts], descriptor
