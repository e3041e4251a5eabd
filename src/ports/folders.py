"""Port for folders with the files of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class WorkFolders(Protocol):
    """Makes folders that only this user can read, and deletes them. Safe for concurrent callers and processes."""

    def new(self) -> AbstractContextManager[Path]:
        """A new, empty folder, deleted with its content when the block ends. Raises OutputError."""

    def clear(self) -> int:
        """Delete the folders of processes that were killed; returns how many. Never raises."""
