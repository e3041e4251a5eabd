"""Port for progress callbacks."""

from __future__ import annotations

from typing import Protocol


class ProgressListener(Protocol):
    """Receives a run's stages and finished tiles. Raises CancelledError from a callback to stop the run."""

    def stage(self, name: str, tiles: int = 0) -> None:
        """Begin a stage (read, score, write, ...) of so many ``tiles``; 0 if it reports none."""

    def advance(self, tiles: int) -> None:
        """Add finished tiles to the current stage."""
