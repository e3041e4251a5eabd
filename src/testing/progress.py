"""The contract that every ProgressListener keeps, as a pytest class to subclass, and a listener that remembers."""

# ruff: noqa: D102 - a test's name is the promise that it checks

from __future__ import annotations

from ..domain.errors import CancelledError
from ..ports.progress import ProgressListener


class ProgressListenerContract:
    """Subclass it and fill in the hooks."""

    def make_listener(self) -> ProgressListener:
        """A listener that does not cancel."""
        raise NotImplementedError

    def seen(self, listener: ProgressListener) -> tuple[str, int, int] | None:
        """The stage that the listener shows, its tiles done and its total; None if it shows nothing."""
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

    def test_a_stage_may_be_told_twice_and_may_report_no_tiles(self) -> None:
        listener = self.make_listener()
        listener.stage("read")
        listener.stage("read")
        assert self.seen(listener) in (None, ("read", 0, 0))


class RecordingProgress:
    """A listener that remembers every stage and tile; cancels the run once ``cancel_after`` tiles are scored."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.stages: list[tuple[str, int]] = []
        self.tiles = 0
        self._cancel_after = cancel_after

    def stage(self, name: str, tiles: int = 0) -> None:
        """Remember a stage."""
        self.stages.append((name, tiles))
        self.tiles = 0

    def advance(self, tiles: int) -> None:
        """Count tiles. Raises CancelledError when there were enough."""
        self.tiles += tiles
        if self._cancel_after is not None and self.tiles >= self._cancel_after:
            raise CancelledError
