"""Folders for the files of one run: gone when it ends, and cleared away by the next process where it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..domain.errors import OutputError

_PREFIX, _LOCK = "voxport-run-", ".lock"


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder, below ``parent`` or the system's temporary folder. Raises OutputError."""
    try:
        folder, lock = _created(parent)
    except OSError as error:
        raise OutputError.cannot_write("scratch folder", error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def clear_scratch(parent: Path | None = None) -> int:
    """Delete folders whose process is gone; how many."""
    cleared = 0
    for lock in Path(parent or tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):  # another user's, or one that is held
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
                cleared += 1
            finally:
                os.close(descriptor)
    return cleared


def _created(parent: Path | None) -> tuple[Path, int]:
    """A folder, and the descriptor of its lock, which the system lets go of however the process ends."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            lock = _locked(folder / _LOCK)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)  # another process took it for a dead one's before it was locked


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        os.close(lock)
        raise
    return lock
