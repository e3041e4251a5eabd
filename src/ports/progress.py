"""Hearing how a run goes on."""

from __future__ import annotations

from typing import Protocol


class ProgressListener(Protocol):
    """Is told of a run's stages and of the tiles done. It stops the run by raising CancelledError."""

    def stage(self, name: str, tiles: int = 0) -> None:
        """A stage begins (read, score, write, ...); ``tiles`` is how many it will report, 0 if none."""
        ...

    def advance(self, tiles: int) -> None:
        """So many more tiles of the present stage are done."""
        ...
