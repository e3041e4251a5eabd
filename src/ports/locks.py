"""Port for locks between processes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Locks(Protocol):
    """Exclusive locks, each named by a file. The system releases a lock with its process, however that ends."""

    def hold(self, path: Path, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold the lock of a file until the block ends; gives whether it is held.

        The file and its folders are created if missing; the holder may delete the file. Without ``wait``, a lock that
        another process holds is not waited for.

        Raises:
            OSError: the file cannot be made or locked.
        """
