"""Stored files: read by position, unpacked into a file without a name, mapped. Adapters share this module."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from zlib_ng import gzip_ng, zlib_ng

from ..domain.errors import InputError
from .disk import CHUNK_BYTES, no_space, unlinked_file, write_at

# Largest expansion of deflate: a 258-byte match in 2 bits (zlib's technical notes, "maximum compression factor").
LARGEST_EXPANSION = 1032
# Measured on label maps of vessels and organs: as small as with zlib's default of 6, to a fifth more, in two fifths of
# the time (180 to 470 MB/s).
COMPRESSION_LEVEL = 5
# Of volumes of several channels, which are noisier. Probabilities become a fifth larger in half of the time,
# uncertainty two fifths larger in a third of the time.
FAST_COMPRESSION_LEVEL = 1
# Some writers pad the end; more than this is not padding.
_LARGEST_TAIL_BYTES = 2**24


@dataclass(frozen=True)
class StoredFile:
    """A file open for reading by position, so that threads can share it. Close it once."""

    descriptor: int
    size: int

    @property
    def is_gzip(self) -> bool:
        """Whether the content is a gzip stream, whatever its name."""
        return os.pread(self.descriptor, 3, 0) == b"\x1f\x8b\x08"

    def close(self) -> None:
        os.close(self.descriptor)


def open_file(path: Path, subject: str) -> StoredFile:
    """Open a file. Raises InputError: missing, a folder, not readable, or not a regular file."""
    try:
        mode = path.stat().st_mode  # before opening: opening a named pipe would wait for a writer
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "something that is not a regular file"
            raise InputError(subject, expected="a file", got=what, do="name the volume itself")
        descriptor = os.open(path, os.O_RDONLY)
        return StoredFile(descriptor, os.fstat(descriptor).st_size)
    except FileNotFoundError:
        raise InputError(subject, expected="a file", got="no such file", do="check the path") from None
    except PermissionError:
        do = "ask for permission, or copy it to where you have it"
        raise InputError(subject, expected="a readable file", got="no permission to read it", do=do) from None
    except (OSError, ValueError) as error:
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(subject, expected="a readable file", got=got, do="check the path") from None


def head(file: StoredFile, length: int, subject: str) -> bytes:
    """Return the first ``length`` bytes of the content, inflated; fewer if it is shorter."""
    with reading_errors(subject):
        if not file.is_gzip:
            return os.pread(file.descriptor, length, 0)
        with _inflated(file) as stream:
            content: bytes = stream.read(length)
            return content


def inflate(file: StoredFile, promised: int, scratch: Path, subject: str) -> int:
    """Inflate the first ``promised`` bytes of a gzip stream into an unlinked file; return its descriptor.

    The stream is read to its end, so that its checksum is verified. Raises as ``unpack`` does.
    """
    with reading_errors(subject), _inflated(file) as stream:
        return unpack(iter(lambda: stream.read(CHUNK_BYTES), b""), promised, scratch, subject)


def unpack(chunks: Iterable[bytes], promised: int, scratch: Path, subject: str) -> int:
    """Write the first ``promised`` bytes of ``chunks`` into an unlinked file; return its descriptor.

    Raises:
        InputError: the chunks are fewer bytes, or many more.
        NoSpaceError: ``scratch`` has too little free space at present.
        LimitError: ``promised`` exceeds the disk.
    """
    expected = f"room for {promised} bytes to inflate the volume"
    with unlinked_file(scratch, promised, expected) as spool:
        status = os.statvfs(spool.fileno())
        if (free := status.f_bavail * status.f_frsize) < promised:
            raise no_space(scratch, expected, f"{free}")
        count = 0
        for chunk in chunks:
            try:
                write_at(spool.fileno(), chunk[: max(0, promised - count)], count)
            except OSError as error:
                raise no_space(scratch, expected, error) from None
            count += len(chunk)
            if count > promised + _LARGEST_TAIL_BYTES:
                raise InputError(
                    subject,
                    expected=f"{promised} bytes, as its header says",
                    got=f"more than {_LARGEST_TAIL_BYTES} bytes beyond them",
                    do="write the file again: header and content do not belong together",
                )
        check_length(count, promised, subject)
        return os.dup(spool.fileno())


def map_file(descriptor: int, size: int, subject: str) -> mmap.mmap:
    """Map the first ``size`` bytes of an open file for reading. Raises InputError."""
    try:
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        do = "try again when nothing else is writing it"
        raise InputError(subject, expected="a file that can be mapped", got=str(error), do=do) from None


def map_content(file: StoredFile, size: int, scratch: Path, subject: str) -> mmap.mmap:
    """Map the first ``size`` bytes of a file's content, inflated into ``scratch`` where it is a gzip stream."""
    if not file.is_gzip:
        return map_file(file.descriptor, size, subject)
    spool = inflate(file, size, scratch, subject)
    try:
        return map_file(spool, size, subject)
    finally:
        os.close(spool)


class MappedArray:
    """An array in the map of a file, read in any thread.

    Args:
        mapped: the map.
        shape: of the array.
        stored: type of its values in the file, in their byte order.
        offset: bytes before its first value.
        order: "F" where the first axis runs fastest, "C" where the last one does.
        copy: copies stored values into those that are read; by default as they are.
    """

    def __init__(
        self,
        mapped: mmap.mmap,
        shape: Sequence[int],
        stored: np.dtype[Any],
        *,
        offset: int = 0,
        order: Literal["C", "F"] = "F",
        copy: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    ) -> None:
        self._mapped: mmap.mmap | None = mapped
        self._shape, self._stored, self._offset, self._order = tuple(shape), stored, offset, order
        self._copy = copy or partial(np.array, order="K")

    def fetch(self, index: Any) -> NDArray[Any]:
        """Copy the values at an index in the order of the file: one in another order would take 40 times as long."""
        mapped = self._mapped
        if mapped is None:
            raise ValueError("the volume is closed")
        stored = np.ndarray(self._shape, self._stored, buffer=mapped, offset=self._offset, order=self._order)
        values = self._copy(stored[index])
        release(mapped)
        return values

    def close(self) -> None:
        """Let the map go; reads in other threads still complete."""
        self._mapped = None


def check_content(file: StoredFile, size: int, subject: str) -> None:
    """Raise InputError for a file that cannot hold ``size`` bytes of content, before anything is allocated."""
    if file.is_gzip:
        check_length(LARGEST_EXPANSION * file.size, size, subject, is_estimate=True)
    else:
        check_length(file.size, size, subject)


def check_length(size: int, promised: int, subject: str, *, is_estimate: bool = False) -> None:
    """Raise InputError unless ``size`` bytes (with ``is_estimate``, at most) hold what a header promises."""
    if size < promised:
        raise InputError(
            subject,
            expected=f"{promised} bytes, as its header says",
            got=f"at most {size}" if is_estimate else f"{size}",
            do="copy or write it again: it was cut short, or its header is wrong",
        )


def sha256(descriptors: Iterable[int]) -> str:
    """Return the hash of the bytes of open files, one after the other; their positions do not matter."""
    digest = hashlib.sha256()
    for descriptor in descriptors:
        position = 0
        while chunk := os.pread(descriptor, CHUNK_BYTES, position):
            position += len(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def release(mapped: mmap.mmap) -> None:
    """Drop the map's pages from resident memory; the file keeps the data."""
    mapped.madvise(mmap.MADV_DONTNEED)


def deflated(file: IO[bytes], level: int = COMPRESSION_LEVEL) -> gzip_ng.GzipNGFile:
    """Return a gzip stream into a file. It holds no name and no time, so that equal volumes give equal files."""
    return gzip_ng.GzipNGFile("", "wb", level, file, mtime=0)


@contextmanager
def reading_errors(subject: str) -> Iterator[None]:
    """Raise errors of reading and inflating as InputErrors about a subject."""
    do = "copy or download it again"
    try:
        yield
    except EOFError:
        raise InputError(subject, expected="a whole gzip stream", got="one cut short", do=do) from None
    except (gzip_ng.BadGzipFile, zlib_ng.error) as error:
        raise InputError(subject, expected="an intact gzip stream", got=f"a damaged one ({error})", do=do) from None
    except OSError as error:
        if error.errno is None:  # bz2
            raise InputError(subject, expected="an intact stream", got=f"a damaged one ({error})", do=do) from None
        got = error.strerror or str(error)
        raise InputError(subject, expected="a readable file", got=got, do="check the disk it is on") from None


@contextmanager
def _inflated(file: StoredFile) -> Iterator[gzip_ng.GzipNGFile]:
    os.lseek(file.descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file.descriptor), "rb") as raw, gzip_ng.GzipNGFile(fileobj=raw, mode="rb") as stream:
        yield stream
