"""Files on a local disk: written whole, reserved, flushed, hashed and cached. Adapters share this module."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Generic, TypeVar

from ..domain.errors import LimitError, NoSpaceError, OutputError

CHUNK_BYTES = 2**20
_ELSEWHERE = "free some room, or name another scratch folder"
T = TypeVar("T")

_Identity = tuple[tuple[int, int, int, int, int], ...]
# A file system's clock ticks every few ms, FAT's every 2 s: a file can change twice within a tick and look the same.
_TICK_NS = 2 * 10**9


@contextmanager
def output_errors(subject: str | Path) -> Iterator[None]:
    """Raise OSErrors as OutputErrors about a subject."""
    try:
        yield
    except OSError as error:
        raise OutputError.cannot_write(str(subject), error) from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a hidden file beside ``path``, flush it and rename it, so that ``path`` is never incomplete."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".voxport-", suffix=".part", delete=False) as file:
        part = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def flush(path: str | Path) -> None:
    """Flush a file or folder to the disk; a flushed folder keeps its renames after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def scratch_folder(given: Path | None) -> Path:
    """Return the folder for temporary files: the one given, else the system's."""
    return Path(tempfile.gettempdir()) if given is None else given


def unlinked_file(folder: Path, size: int, expected: str) -> IO[bytes]:
    """Create a file without a name, which disappears with the process, for ``size`` bytes.

    Raises:
        LimitError: ``size`` exceeds the disk.
        NoSpaceError: the file cannot be created at present.
    """
    try:
        status = os.statvfs(folder)
        if (whole := status.f_blocks * status.f_frsize) < size:
            raise LimitError(str(folder), expected=expected, got=f"a disk of {whole}", do=_ELSEWHERE)
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        raise no_space(folder, expected, error) from None


def no_space(folder: Path, expected: str, reason: OSError | str) -> NoSpaceError:
    """Build the error for a scratch folder with too little free space at present."""
    got = reason if isinstance(reason, str) else reason.strerror or str(reason)
    return NoSpaceError(str(folder), expected=expected, got=got, do=_ELSEWHERE)


def write_at(descriptor: int, data: bytes, position: int) -> None:
    """Write all of ``data``; one call of the system may write only a part, e.g. on a disk that is nearly full."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, position)
        rest, position = rest[written:], position + written


def reserve(descriptor: int, size: int) -> None:
    """Reserve ``size`` zero bytes at the start of a file, by writing them where the file system cannot allocate."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
        else:
            return
    zeros = bytes(CHUNK_BYTES)
    for position in range(0, size, CHUNK_BYTES):
        write_at(descriptor, zeros[: size - position], position)


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileMemory(Generic[T]):
    """Cache of values read from files, keyed by device, inode, size and times. Thread-safe.

    A look-up takes one ``stat`` a file. Values of files changed within the last two seconds are not cached.

    Args:
        capacity: number of cached values; the least recently used is dropped first.
        now_ns: clock, in nanoseconds since 1970.
    """

    def __init__(self, capacity: int = 256, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._capacity = capacity
        self._now_ns = now_ns
        self._known: OrderedDict[Hashable, tuple[_Identity, T]] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, question: Hashable, files: Iterable[Path], read: Callable[[], T]) -> T:
        """Return the value of ``read``, which depends on these files only; exceptions are not cached."""
        # taken before reading, so that a change in the meantime shows the next time
        identity = _identity(files)
        if identity is None:
            return read()
        with self._lock:
            known = self._known.get(question)
            if known is not None and known[0] == identity:
                self._known.move_to_end(question)
                return known[1]
        began = self._now_ns()
        answer = read()
        if max(max(modified, changed) for *_, modified, changed in identity) < began - _TICK_NS:
            with self._lock:
                self._known[question] = (identity, answer)
                self._known.move_to_end(question)
                if len(self._known) > self._capacity:
                    self._known.popitem(last=False)
        return answer


def _identity(files: Iterable[Path]) -> _Identity | None:
    """Return the key of a file, or None if unavailable."""
    try:
        found = [path.stat() for path in files]
    except OSError:
        return None
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found)
