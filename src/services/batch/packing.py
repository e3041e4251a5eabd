"""Volumes on their way to the queue: files as they are, folders as zips, headers with their voxels as one file."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from ...domain.volume_names import HEADERS, ZIP
from .folder import BatchFolder, sha256_of, writing

# Writes a volume of several files as one into a file; the same files give the same bytes.
Pack = Callable[[Path, BinaryIO], object]


@dataclass(frozen=True)
class Packer:
    """Gives each volume below ``volumes`` as one file; ``pack`` writes those of several files."""

    volumes: Path
    folder: BatchFolder
    pack: Pack

    def name(self, name: str) -> str:
        """Return the bare name of a volume's file."""
        return Path(name).name + (ZIP if (self.volumes / name).is_dir() else "")

    def sha256(self, name: str) -> str:
        """Return the hash of a volume's file. Raises OSError, and InputError for what cannot be packed."""
        if not self._is_packed(name):
            return sha256_of(self.volumes / name)
        return self._packed(name, None)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give the path of a volume's file, deleted at the end if it was packed. Raises OutputError, InputError."""
        if not self._is_packed(name):
            yield self.volumes / name
            return
        part = self.folder.state / "landing" / uuid.uuid4().hex
        try:
            with writing(part):
                part.parent.mkdir(exist_ok=True)
                with part.open("wb") as file:
                    self._packed(name, file)
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _is_packed(self, name: str) -> bool:
        return name.lower().endswith(HEADERS) or (self.volumes / name).is_dir()

    def _packed(self, name: str, file: IO[bytes] | None) -> str:
        stream = _Hashed(file)
        self.pack(self.volumes / name, cast(BinaryIO, stream))
        return stream.sha256.hexdigest()


class _Hashed(io.RawIOBase):
    """A stream that cannot seek, so that its bytes do not depend on the file; hashes what goes to ``file``, if any."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.sha256.update(data)
        if self._file is not None:
            self._file.write(data)
        return len(data)
