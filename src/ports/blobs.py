"""Stored files: uploads and results under names, reached by every worker."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

from ..domain.errors import InputError, UsageError


class BlobStore(Protocol):
    """Keeps files by name: words between slashes, e.g. ``folder/inputs/scan.nii.gz``. Safe for several threads.

    A blob appears whole or not at all, also when its writer is killed. Failures of the place while reading are raised
    as the system's OSError.
    """

    def put(self, name: str, content: Path | IO[bytes]) -> str:
        """Store a file's content under a name, replacing an earlier blob; its sha256.

        Raises:
            OutputError: the place cannot be written or is full.
            UsageError: not a blob's name.
        """

    def staging(self) -> AbstractContextManager[Path] | None:
        """A new local folder, deleted at the end, whose files ``take`` moves without copying; None where impossible."""

    def take(self, name: str, file: Path, sha256: str) -> None:
        """As ``put`` for a local file of known sha256, which is moved where it can be, else copied and deleted."""

    def fetch(self, name: str, destination: Path) -> str:
        """Copy a blob to a local file, replacing it; its sha256. Raises InputError where there is none."""

    def link(self, name: str, destination: Path) -> str:
        """Link a blob to a new local path for reading, or copy it; its sha256. Raises InputError if there is none."""

    def open(self, name: str) -> IO[bytes]:
        """Open a blob for reading. Raises InputError where there is none."""

    def exists(self, name: str) -> bool:
        """Whether a blob of this name exists."""

    def names(self, prefix: str) -> tuple[str, ...]:
        """All names below ``prefix/``, sorted."""

    def delete_prefix(self, prefix: str) -> None:
        """Delete all blobs below ``prefix/``. Raises OutputError."""


def check_blob_name(name: str) -> None:
    """Raise UsageError unless ``name`` is words between slashes, without ``.`` and ``..``."""
    words = name.split("/")
    if any(word in ("", ".", "..") or not word.isprintable() or "\\" in word for word in words):
        do = "use letters, digits, dots and dashes"
        raise UsageError("blob name", expected="words between slashes", got=repr(name[:80]), do=do)


def missing_blob(name: str) -> InputError:
    """The error for a name without a blob."""
    return InputError(name, expected="a stored file", got="nothing of that name", do="send it again")
