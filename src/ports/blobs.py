"""Uploads and results as whole files under names, where every worker reaches them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Protocol

from ..domain.errors import InputError, UsageError


class BlobStore(Protocol):
    """Keeps files by name: words between slashes, as in ``folder/inputs/scan.nii.gz``. Safe for several threads.

    A blob is there whole or not at all, also when a process dies while it writes one.
    Where the place itself fails while it reads, the system's OSError is raised as it is.
    """

    def put(self, name: str, content: Path | IO[bytes]) -> str:
        """Keep a file's content under a name, replacing what was there; its sha256.

        Raises:
            OutputError: the place cannot be written or has no room.
            UsageError: not a name that a blob can have.
        """
        ...

    def fetch(self, name: str, destination: Path) -> str:
        """Write a blob to a local file, replacing it; its sha256. Raises InputError where there is none."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A blob for reading. Raises InputError where there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a blob of this name."""
        ...

    def names(self, prefix: str) -> tuple[str, ...]:
        """All names below ``prefix/``, sorted; none where there is nothing."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Delete all blobs below ``prefix/``, if there are any. Raises OutputError."""
        ...


def check_blob_name(name: str) -> None:
    """Raise UsageError unless ``name`` is words between slashes that lead nowhere else."""
    words = name.split("/")
    if any(word in ("", ".", "..") or not word.isprintable() or "\\" in word for word in words):
        do = "use letters, digits, dots and dashes"
        raise UsageError("blob name", expected="words between slashes", got=repr(name[:80]), do=do)


def missing_blob(name: str) -> InputError:
    """The error for a name that nothing is kept under."""
    return InputError(name, expected="a stored file", got="nothing of that name", do="send it again")
