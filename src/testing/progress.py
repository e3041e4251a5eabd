"""Contract suite of `ProgressListener`, and a recording listener."""

from __future__ import annotations

from ..domain.errors import CancelledError
from ..ports.progress import ProgressListener


class ProgressListenerContract:
    """Subclass and implement the hooks."""

    def make_listener(self) -> ProgressListener:
        """Return a listener that does not cancel."""
        raise NotImplementedError

    def seen(self, listener: ProgressListener) -> tuple[str, int, int] | None:
        """Return the stage that the listener shows, its finished tiles and its total; None if it shows nothing."""
        raise NotImplementedError

    def test_tiles_add_up_to_the_stages_total(self) -> None:
        listener = self.make_listener()
        listener.stage("read")
        listener.stage("score", 5)
        for tiles in (1, 3, 1):
            listener.advance(tiles)
        assert self.seen(listener) in (None, ("score", 5, 5))

    def test_a_new_stage_begins_at_zero(self) -> None:
        listener = self.make_listener()
        listener.stage("compare", 2)
        listener.advance(2)
        listener.stage("score", 7)
        listener.advance(1)
        assert self.seen(listener) in (None, ("score", 1, 7))

    def test_a_stage_may_begin_twice_and_may_report_no_tiles(self) -> None:
        listener = self.make_listener()
        listener.stage("read")
        listener.stage("read")
        assert self.seen(listener) in (None, ("read", 0, 0))


class RecordingProgress:
    """A listener that records stages and tiles, and cancels the run after ``cancel_after`` tiles."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.stages: list[tuple[str, int]] = []
        self.tiles = 0
        self._cancel_after = cancel_after

    def stage(self, name: str, tiles: int = 0) -> None:
        """Record a stage."""
        self.stages.append((name, tiles))
        self.tiles = 0

    def advance(self, tiles: int) -> None:
        """Count tiles. Raises CancelledError after ``cancel_after``."""
        self.tiles += tiles
        if self._cancel_after is not None and self.tiles >= self._cancel_after:
            raise CancelledError
