"""Blobs as files below a URL that fsspec understands, e.g. a folder (``file:///...``)."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, cast

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from ....ports.blobs import BlobStore, check_blob_name, missing_blob
from ...disk import CHUNK_BYTES, flush, output_errors

_PARTS = ".parts"  # beside the blobs: the same file system, so that a rename is atomic
_ABANDONED_AFTER = timedelta(days=1)


class FsspecBlobs(BlobStore):
    """BlobStore on any fsspec file system.

    A blob is written in ``.parts`` and then moved. In a local folder the file and its folder are flushed to the disk
    first, so that a blob survives a power cut once ``put`` returns. Object stores make an object appear whole by
    themselves. Files of killed processes in ``.parts`` are deleted after a day.

    A missing local folder is created, readable by this user only.
    """

    def __init__(self, url: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)
        self._is_clear = False

    def put(self, name: str, content: Path | IO[bytes]) -> str:
        check_blob_name(name)
        part = f"{self._root}/{_PARTS}/{secrets.token_hex(16)}"
        with output_errors(name):
            try:
                self._make_ready()
                digest = self._write(part, content)
                self._publish(part, self._path(name))
            finally:
                with suppress(OSError):
                    self._files.rm_file(part)
        return digest

    def staging(self) -> AbstractContextManager[Path] | None:
        return self._staged() if self._local else None

    def take(self, name: str, file: Path, sha256: str) -> None:
        check_blob_name(name)
        with output_errors(name):
            if not (self._local and self._is_moved(file, self._path(name))):
                if self.put(name, file) != sha256:
                    raise OSError(errno.EIO, "the file changed while it was stored")
                file.unlink()

    def fetch(self, name: str, destination: Path) -> str:
        with self.open(name) as source, destination.open("wb") as copy:
            return _copy(source, copy)

    def link(self, name: str, destination: Path) -> str:
        if not self._local:
            return self.fetch(name, destination)
        with self.open(name) as source:
            try:
                destination.hardlink_to(self._path(name))
            except OSError:  # another file system
                destination.symlink_to(self._path(name))
            return hashlib.file_digest(cast("io.BufferedReader", source), "sha256").hexdigest()

    def open(self, name: str) -> IO[bytes]:
        check_blob_name(name)
        try:
            return cast("IO[bytes]", self._files.open(self._path(name), "rb"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise missing_blob(name) from None

    def exists(self, name: str) -> bool:
        check_blob_name(name)
        return bool(self._files.isfile(self._path(name)))

    def names(self, prefix: str) -> tuple[str, ...]:
        check_blob_name(prefix)
        try:
            found = self._files.find(self._path(prefix))
        except FileNotFoundError:
            return ()
        return tuple(sorted(path[len(self._root) + 1 :] for path in found if path != self._path(prefix)))

    def delete_prefix(self, prefix: str) -> None:
        check_blob_name(prefix)
        with output_errors(prefix), suppress(FileNotFoundError):
            self._files.rm(self._path(prefix), recursive=True)

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        with output_errors("staging folder"):
            self._make_ready()
            folder = Path(mkdtemp(dir=f"{self._root}/{_PARTS}"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_ready(self) -> None:
        """Create the folders; the first time, delete partial files of killed processes."""
        parts = f"{self._root}/{_PARTS}"
        if self._local:
            Path(self._root).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files.makedirs(parts, exist_ok=True)
        if self._is_clear:
            return
        for part in self._files.ls(parts, detail=False):
            with suppress(OSError, NotImplementedError, TypeError):  # deleted meanwhile, or of no known age
                if datetime.now(UTC) - self._files.modified(part) > _ABANDONED_AFTER:
                    self._files.rm(part, recursive=True)
        self._is_clear = True

    def _write(self, part: str, content: Path | IO[bytes]) -> str:
        reading = content.open("rb") if isinstance(content, Path) else nullcontext(content)
        with reading as source, self._files.open(part, "wb") as target:
            sha256 = _copy(source, target)
            if self._local:
                target.flush()
                os.fsync(target.fileno())
        return sha256

    def _publish(self, part: str, path: str) -> None:
        folder = path.rpartition("/")[0]
        self._files.makedirs(folder, exist_ok=True)
        if not self._local:
            self._files.mv(part, path)
            return
        Path(part).replace(path)  # fsspec's own move copies
        flush(folder)

    def _is_moved(self, file: Path, path: str) -> bool:
        """Move a file to a blob's place; return False if that is on another file system."""
        self._make_ready()
        flush(file)
        try:
            self._publish(str(file), path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()
