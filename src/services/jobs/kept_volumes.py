"""Volumes that callers keep on the server between requests, for protocols whose clients upload once and ask often."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from ...domain.errors import InputError
from ...ports.blobs import BlobStore

_KEPT = "kept"
# of one owner; the oldest go first
_MOST = 16


@dataclass(frozen=True)
class _Kept:
    """The files of one id: their blobs, and when they go, in seconds since 1970."""

    folder: str
    ends: float
    names: tuple[str, ...]


@dataclass(frozen=True)
class KeptVolumes:
    """Keeps a few volumes for each owner, by ids, until they expire. Every process of a service sees the same.

    A blob is named ``kept/OWNER/ID/END-RANDOM/FILE``, with the id hashed, as callers choose it, and the end in
    microseconds.
    """

    blobs: BlobStore
    now: Callable[[], float] = time.time

    def keep(self, owner: str, id: str, files: Sequence[tuple[Path, str]], seconds: float) -> None:
        """Take over files, given with their sha256, as one volume, in place of an earlier one of this id.

        The owner's oldest volume goes if there are 16. Raises OutputError if they cannot be stored.
        """
        self.sweep()
        earlier = [*self._of(f"{_KEPT}/{owner}/{_hashed(id)}")]
        folder = f"{_KEPT}/{owner}/{_hashed(id)}/{int((self.now() + seconds) * 1e6)}-{secrets.token_hex(4)}"
        for file, digest in files:
            self.blobs.take(f"{folder}/{file.name}", file, digest)
        for kept in earlier:
            self.blobs.delete_prefix(kept.folder)
        for kept in sorted(self._of(f"{_KEPT}/{owner}"), key=lambda kept: kept.ends)[:-_MOST]:
            self.blobs.delete_prefix(kept.folder)

    def link(self, owner: str, id: str, folder: Path) -> list[Path]:
        """Link the files of a volume into a folder, for reading. Raises InputError if the owner has none of this id."""
        kept = self._find(owner, id)
        paths = [folder / PurePosixPath(name).name for name in kept.names]
        for name, path in zip(kept.names, paths, strict=True):
            self.blobs.link(name, path)
        return paths

    def seconds_left(self, owner: str, id: str) -> float:
        """Seconds until a volume expires. Raises InputError if the owner has none of this id."""
        return self._find(owner, id).ends - self.now()

    def forget(self, owner: str, id: str) -> None:
        """Delete a volume. Raises InputError if the owner has none of this id."""
        self.blobs.delete_prefix(self._find(owner, id).folder.rpartition("/")[0])

    def sweep(self) -> int:
        """Delete the volumes of all owners that have expired; return their number."""
        over = [kept for kept in self._of(_KEPT) if kept.ends <= self.now()]
        for kept in over:
            self.blobs.delete_prefix(kept.folder)
        return len(over)

    def _find(self, owner: str, id: str) -> _Kept:
        found = [kept for kept in self._of(f"{_KEPT}/{owner}/{_hashed(id)}") if kept.ends > self.now()]
        if not found:
            got = "one that has ended, or was never there"
            raise InputError(f"volume {id[:80]}", expected="one that is kept here", got=got, do="upload it again")
        return max(found, key=lambda kept: kept.ends)

    def _of(self, prefix: str) -> Iterator[_Kept]:
        folders: dict[str, list[str]] = {}
        for name in self.blobs.names(prefix):
            folders.setdefault(name.rpartition("/")[0], []).append(name)
        for folder, names in folders.items():
            yield _Kept(folder, int(folder.rpartition("/")[2].partition("-")[0]) / 1e6, tuple(names))


def _hashed(id: str) -> str:
    return sha256(id.encode()).hexdigest()[:32]
