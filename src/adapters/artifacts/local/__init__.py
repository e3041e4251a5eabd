"""Result files in the local file system."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from ....domain.errors import OutputError
from ....ports.artifacts import ArtifactWriter
from ...disk import write_whole


class LocalFiles(ArtifactWriter):
    """`ArtifactWriter` that writes a hidden file beside the destination, then renames it."""

    def check(self, reference: str) -> None:
        destination = Path(reference)
        folder = destination.parent
        if not folder.is_dir():
            raise OutputError.cannot_write(reference, "no such folder")
        if destination.is_dir():
            raise OutputError.cannot_write(reference, "a folder of that name")
        try:
            with suppress(FileNotFoundError):
                destination.lstat()  # finds names that are too long
            # Only opening a file detects read-only mounts and full quotas.
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError.cannot_write(reference, error) from None

    def write(self, reference: str, content: bytes) -> None:
        try:
            write_whole(Path(reference), content)
        except OSError as error:
            raise OutputError.cannot_write(reference, error) from None
