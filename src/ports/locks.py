"""Port for locks between processes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Locks(Protocol):
    """Exclusive locks, each named by a file. The system releases a lock with its process, however that ends."""

    def hold(self, path: Path, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold a lock until the block ends; gives whether it is held.

        Args:
            path: of the lock's file, which is made, with its folders, where it is missing. Its holder may delete it.
            wait: wait for another holder to release it; else the lock is not held where another holds it.

        Raises:
            OSError: the file cannot be made or locked.
        """
