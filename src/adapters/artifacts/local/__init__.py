"""Result files in the local file system."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from ....domain.errors import OutputError
from ....ports.artifacts import ArtifactWriter
from ...disk import output_errors, write_whole


class LocalFiles(ArtifactWriter):
    """`ArtifactWriter` that writes a hidden file beside the destination, then renames it."""

    def check(self, reference: str) -> None:
        destination = Path(reference)
        folder = destination.parent
        with output_errors(reference):
            if not folder.is_dir():
                raise OutputError.cannot_write(reference, "no such folder")
            if destination.is_dir():
                raise OutputError.cannot_write(reference, "a folder of that name")
            with suppress(FileNotFoundError):
                destination.lstat()  # finds names that are too long
            # Only opening a file detects read-only mounts and full quotas.
            with tempfile.TemporaryFile(dir=folder):
                pass

    def write(self, reference: str, content: bytes) -> None:
        with output_errors(reference):
            write_whole(Path(reference), content)
