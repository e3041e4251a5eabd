"""The listener that remembers keeps the ProgressListener contract, and cancels when told to."""

from __future__ import annotations

import pytest
from voxport.domain.errors import CancelledError
from voxport.ports.progress import ProgressListener
from voxport.testing.progress import ProgressListenerContract, RecordingProgress


class TestRecordingProgress(ProgressListenerContract):
    def make_listener(self) -> ProgressListener:
        return RecordingProgress()

    def seen(self, listener: ProgressListener) -> tuple[str, int, int] | None:
        assert isinstance(listener, RecordingProgress)
        name, total = listener.stages[-1]
        return name, listener.tiles, total


def test_it_cancels_after_so_many_tiles() -> None:
    listener = RecordingProgress(cancel_after=3)
    listener.stage("score", 10)
    listener.advance(2)
    with pytest.raises(CancelledError):
        listener.advance(1)
