"""Volumes on their way to a server: opened once, streamed from disk, hashed, under neutral names."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..domain.errors import InputError, UsageError
from ..domain.volume_names import GZIP_MAGIC, NIFTI, PACKED, PLAIN, sent_name
from .errors import RemoteError
from .fields import Fields, Form

_SENT_NAME = re.compile(rf"(?:[^\s'\"]*/)?volume_(\d+)(?:{re.escape(PACKED)}|{re.escape(PLAIN)})")


@dataclass(frozen=True)
class Sent:
    """Local name and sha256 of each uploaded volume, in order."""

    names: tuple[str, ...]
    sha256: tuple[str, ...]

    def entries(self) -> list[dict[str, str]]:
        """The volumes as listed in a report."""
        pairs = zip(self.names, self.sha256, strict=True)
        return [{"name": name, "sha256": sha256} for name, sha256 in pairs]

    def localised(self, text: str) -> str:
        """Replace the server's names of volumes by local ones."""
        return localised(text, self.names)

    def check_received(self, report: Mapping[str, Any], url: str) -> None:
        """Raise RemoteError unless the report, or job, lists exactly the uploaded bytes in order."""
        if [entry["sha256"] for entry in report["inputs"]] != list(self.sha256):
            raise RemoteError(
                url,
                expected="a result for the volumes that were sent",
                got="one for others, by their sha256",
                do="ask again, and tell who runs the server",
            )


def localised(text: str, names: Sequence[str]) -> str:
    """A server's words, in which volumes go by their numbers, with these names in them."""

    def local(match: re.Match[str]) -> str:
        number = int(match[1])
        return names[number - 1] if 1 <= number <= len(names) else match[0]

    return _SENT_NAME.sub(local, text)


StrPath = str | os.PathLike[str]
Volumes = StrPath | Sequence[StrPath]

# Receives the stage (upload, score, download), the bytes done, and the total; 0 if unknown.
OnProgress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


def paths_of(volumes: Volumes) -> list[Path]:
    """Return the paths as a list."""
    return [Path(path) for path in ([volumes] if isinstance(volumes, str | os.PathLike) else volumes)]


class Uploads:
    """The volumes of one case as files of a form; a context manager.

    The server receives neutral names: ``volume_1.nii.gz``, or ``.nii``, by content.

    Args:
        volumes: one file a volume, ``.nii`` or ``.nii.gz``.
        on_progress: receives the bytes sent, and the stage ``score`` after the last.

    Raises:
        UsageError: no volumes.
        InputError: a file is missing, unreadable, or one of a pair.
    """

    def __init__(self, volumes: Sequence[Path], on_progress: OnProgress = silent) -> None:
        if not volumes:
            raise UsageError("volumes", expected="at least one", got="none", do="name the volumes of the case")
        self._names = tuple(map(str, volumes))
        self._on_progress = on_progress
        self._sent = 0
        with ExitStack() as stack:
            self._files = [stack.enter_context(_open(path, self._advance)) for path in volumes]
            self._stack = stack.pop_all()
        self._total = sum(os.fstat(file.fileno()).st_size for file in self._files)

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def form(self, fields: Fields) -> Form:
        """Return a form with these fields and the volumes in order."""
        parts = [("volume", _part(file, number)) for number, file in enumerate(self._files, start=1)]
        return Form(fields, parts, lambda: self._sent >= self._total, self.localised)

    def sent(self) -> Sent:
        """The uploaded volumes; valid after the upload."""
        return Sent(self._names, tuple(file.sha256.hexdigest() for file in self._files))

    def localised(self, text: str) -> str:
        """See `Sent.localised`."""
        return localised(text, self._names)

    def _advance(self, count: int) -> None:
        self._sent += count
        self._on_progress("upload", self._sent, self._total)
        if self._sent >= self._total:
            self._on_progress("score", 0, 0)


class _Upload(io.BufferedReader):
    """A file that hashes and counts what is read, and detects changes."""

    def __init__(self, path: Path, count_bytes: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._path = path
        self._count_bytes = count_bytes
        self._state = self._present_state()
        self.sha256 = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        """See io.BufferedReader. Raises InputError once the file is no longer what it was."""
        chunk = super().read(size)
        if self._present_state() != self._state:
            do = "ask again once nothing writes to it"
            raise InputError(str(self._path), expected="a volume that stays as it is", got="one that changed", do=do)
        self.sha256.update(chunk)
        if chunk:
            self._count_bytes(len(chunk))
        return chunk

    def _present_state(self) -> tuple[int, int]:
        now = os.fstat(self.fileno())
        return now.st_size, now.st_mtime_ns


def _open(path: Path, count_bytes: Callable[[int], None]) -> _Upload:
    try:
        mode = path.stat().st_mode  # First, because opening a named pipe would wait for a writer.
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "something that is not a regular file"
            raise InputError(str(path), expected="a file", got=what, do="name the volume itself")
        if path.name.lower().endswith(tuple(half for pair in NIFTI.pairs for half in pair)):
            do = f"save it as one file, e.g. nibabel.save(nibabel.load('{path.name}'), 'volume{PACKED}')"
            raise InputError(str(path), expected=f"{PLAIN} or {PACKED} to send to a server", got="one of a pair", do=do)
        return _Upload(path, count_bytes)
    except FileNotFoundError:
        raise InputError(str(path), expected="a file", got="no such file", do="check the path") from None
    except (OSError, ValueError) as error:
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(str(path), expected="a readable file", got=got.lower(), do="check the path") from None


def _part(file: _Upload, number: int) -> tuple[str, BinaryIO, str]:
    """Return a volume as httpx takes it: neutral name, content, media type."""
    start = file.peek(len(GZIP_MAGIC))[: len(GZIP_MAGIC)]
    kind = "application/gzip" if start == GZIP_MAGIC else "application/octet-stream"
    return sent_name(number, start), file, kind
