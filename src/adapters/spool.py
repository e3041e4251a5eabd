"""Volumes written through a spool: a file without a name takes boxes in any order, and a format is written at commit.

Adapters of volumes share this module.
"""

from __future__ import annotations

import hashlib
import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..domain.errors import OutputError
from ..domain.geometry.grid import Box, Grid
from ..ports.volume_store import VolumeSink, VolumeSource
from .disk import CHUNK_BYTES, flush, output_errors, reserve
from .stored_files import release

_PLANES_AT_ONCE = 4


class MappedSink(VolumeSink):
    """Base of the sinks that keep a volume in a map of a file until it is committed; see VolumeSink.

    A subclass sets ``_mapped``, and ``_hash`` once the volume is committed.
    """

    _mapped: mmap.mmap | None = None
    _hash: str | None = None

    def write(self, box: Box, values: NDArray[Any]) -> None:
        mapped = self._open_map()
        if self._hash is not None:
            raise ValueError("the volume is committed")
        view = box.view(self._voxels(mapped))
        if values.shape != view.shape and (len(view) != 1 or values.shape != box.shape):
            raise ValueError(f"values: expected {view.shape}, got {values.shape}")
        values = values.reshape(view.shape)
        # touching a page may map megabytes around it, so only a few planes are held at a time
        for start in range(0, max(box.shape[2], 1), _PLANES_AT_ONCE):
            part = (..., slice(start, start + _PLANES_AT_ONCE))
            np.copyto(view[part], values[part], casting="same_kind")
            release(mapped)

    def read(self, box: Box) -> NDArray[Any]:
        mapped = self._open_map()
        values = np.array(box.view(self._voxels(mapped)), order="K")
        release(mapped)
        return values

    def _voxels(self, mapped: mmap.mmap) -> NDArray[Any]:
        """Return a view ``(C, x, y, z)`` of all voxels."""
        raise NotImplementedError

    def _open_map(self) -> mmap.mmap:
        if self._mapped is None:
            raise ValueError("the volume is closed")
        return self._mapped


class SpooledSink(MappedSink):
    """A volume being written; see VolumeSink.

    Args:
        path: of the file or folder that will be the volume.
        grid: of the volume.
        dtype: an integer type, float32 or float64.
        channels: their number.
        write: writes a volume ``(C, x, y, z)``, x fastest in memory and mapped from a file, as files into an empty
            folder; the one named as ``path`` is published last, and may be a folder.
        digest: the hash of the volume at ``path``, as its source gives it.
        notes: what the format cannot say of the volume.
        beside: an existing folder on the same file system, for files in the making; by default that of ``path``.
        move: takes what ``write`` wrote to its place; by default `publish`.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        dtype: np.dtype[Any],
        channels: int,
        *,
        write: Callable[[NDArray[Any], Path], None],
        digest: Callable[[Path], str],
        notes: Sequence[str] = (),
        beside: Path | None = None,
        move: Callable[[Path, Path], None] | None = None,
    ) -> None:
        native = written_dtype(dtype)
        self._notes = tuple(notes)
        self._path, self._write, self._digest = path, write, digest
        self._beside, self._move = beside or path.parent, move or publish
        self._shape, self._dtype = (channels, *grid.shape), native
        self._size = int(np.prod(self._shape)) * native.itemsize
        self._spool: IO[bytes] | None = None
        with output_errors(path.name):
            check_destination(path if beside is None else beside / path.name)
            self._spool = tempfile.TemporaryFile(dir=self._beside, buffering=0)  # noqa: SIM115 - closed by close
            try:
                reserve(self._spool.fileno(), self._size)  # writing to a map on a full disk would kill the process
                self._mapped = mmap.mmap(self._spool.fileno(), self._size)
            except BaseException:
                self.close()
                raise

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    def commit(self) -> str:
        if self._hash is not None:
            return self._hash
        mapped = self._open_map()
        try:
            with output_errors(self._path.name), _hidden_folder(self._beside, self._path.name) as folder:
                self._write(self._voxels(mapped), folder)
                self._move(folder, self._path)
            self._hash = self._digest(self._path)
        except BaseException:
            self.close()
            raise
        return self._hash

    def close(self) -> None:
        self._mapped = None
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _voxels(self, mapped: mmap.mmap) -> NDArray[Any]:
        channels, x, y, z = self._shape
        return np.ndarray((channels, z, y, x), self._dtype, buffer=mapped).transpose(0, 3, 2, 1)


def dropped(values: NDArray[Any]) -> None:
    """Take the pages of a sink's volume out of memory; they are read again when they are needed."""
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        release(base)


def check_new_volume(grid: Grid, channels: int, channel_names: Sequence[str], like: VolumeSource | None) -> None:
    """Raise ValueError for arguments of ``VolumeStore.create`` that do not belong together."""
    if len(channel_names) not in (0, channels):
        raise ValueError(f"channel_names: expected {channels} or none, got {len(channel_names)}")
    if like is not None and like.grid != grid:
        raise ValueError("like: expected a source on the same grid")


def written_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a type that a sink takes, in native byte order. Raises ValueError for another one."""
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind not in "iuf" or native.itemsize > 8 or native == np.float16:
        raise ValueError(f"dtype: expected an integer type, float32 or float64, got {dtype}")
    return native


def check_destination(path: Path) -> None:
    """Raise OutputError unless a file or folder may be made at a path; OSError where that cannot be known."""
    subject, folder = path.name or str(path), path.parent
    if "\0" in str(path):
        raise OutputError(subject, expected="a usable path", got="a NUL character in it", do="name another one")
    if not folder.is_dir():
        got = f"{folder}, which is not a folder" if folder.exists() else f"no folder {folder}"
        raise OutputError(subject, expected="an existing folder", got=got, do="make the folder first")


def check_file_name(path: Path) -> None:
    """Raise OutputError for a folder, where a file is to be made."""
    if path.is_dir():
        raise OutputError(path.name, expected="a file name", got="a folder", do="name a file in it")


def publish(folder: Path, path: Path) -> None:
    """Move the entries of a folder beside ``path``, flushed, the one of its name last; they replace older ones."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == path.name):
        for part in [entry, *entry.rglob("*")] if entry.is_dir() else [entry]:
            flush(part)
        target = path.with_name(entry.name)
        if target.is_dir() and not target.is_symlink():  # a folder cannot replace a folder that holds something
            target.rename(folder / f"{entry.name}.old")
        entry.rename(target)
    with suppress(OSError):  # the volume is complete, also where the file system cannot flush a folder
        flush(path.parent)


def tree_sha256(path: Path) -> str:
    """Return the hash of a file's content; of a folder's files with their names, in the order of the names."""
    digest = hashlib.sha256()
    for file in _files(path):
        if file != path:
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _files(path: Path) -> Iterable[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


@contextmanager
def _hidden_folder(beside: Path, name: str) -> Iterator[Path]:
    """Make an empty folder in another one, deleted at the end; its files may be renamed to their place."""
    folder = Path(tempfile.mkdtemp(prefix=f".{name[:40]}.", suffix=".part", dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
