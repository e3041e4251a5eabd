"""Locks on files, by ``flock``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ....ports.locks import Locks


class FileLocks(Locks):
    """Locks by ``flock``. On a network share they hold between machines only where the share supports it."""

    @contextmanager
    def hold(self, path: Path, *, wait: bool = True) -> Iterator[bool]:
        descriptor = _locked(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _locked(path: Path, operation: int) -> int | None:
    """Return the descriptor of a locked file; None if another process holds the lock."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the last holder deleted the folder just now
            continue
        try:
            fcntl.flock(descriptor, operation)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the last holder deleted the file before it was locked here
