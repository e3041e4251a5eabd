"""Files on a local disk: written whole, flushed, hashed. Adapters share these functions."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


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


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
