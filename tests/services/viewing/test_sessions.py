"""Sessions are apart from each other, and leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import CancelledError, UsageError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.labels.brush import Stroke
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.run import RunOptions
from voxport.domain.volume import Volume
from voxport.ports.progress import ProgressListener
from voxport.services.viewing.correction import Correction
from voxport.services.viewing.sessions import Result, RunProgress, Session, Sessions
from voxport.services.viewing.volume_viewer import OpenVolume, ShownMask
from voxport.testing.progress import ProgressListenerContract

GRID = Grid((3, 4, 5), np.eye(4))


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    sessions = Sessions(tmp_path, idle_seconds=1000)
    yield sessions
    sessions.close()
    assert list(tmp_path.iterdir()) == []


def opened() -> OpenVolume:
    store = MemoryStore()
    store.put("scan", Volume(np.zeros(GRID.shape, np.uint8), GRID))
    return OpenVolume.open(store, ["scan"])


def show(session: Session) -> tuple[OpenVolume, Path]:
    """Open a volume in a session; its file."""
    file = session.new_folder() / "scan.nii"
    file.touch()
    volume = opened()
    session.show(volume, (file,), RunOptions())
    return volume, file


def result(session: Session) -> Result:
    folder = session.new_folder()
    source = opened().case.sources[0]
    return Result({}, {}, ShownMask(source, LabelTable(()), Box.whole(GRID.shape)), folder)


class TestRunProgress(ProgressListenerContract):
    def make_listener(self) -> ProgressListener:
        return RunProgress()

    def seen(self, listener: ProgressListener) -> tuple[str, int, int] | None:
        assert isinstance(listener, RunProgress)
        return listener.state, listener.done, listener.tiles


def test_tokens_find_their_own_session_only(sessions: Sessions) -> None:
    one, other = sessions.open(), sessions.open()
    assert sessions.find(one.token) is one
    assert one.token != other.token
    assert len(one.token) >= 32
    for token in (None, "", one.token[:-1]):
        with pytest.raises(UsageError, match="load the page again"):
            sessions.find(token)


def test_ending_a_session_deletes_its_files_and_no_others(sessions: Sessions) -> None:
    one, other = sessions.open(), sessions.open()
    _, file = show(one)
    _, kept = show(other)
    sessions.end(one)
    sessions.end(one)
    assert not file.exists()
    assert kept.exists()
    with pytest.raises(CancelledError):
        one.new_folder()
    with pytest.raises(CancelledError):
        one.show(opened(), (), RunOptions())


def test_files_that_wait_for_a_reading_stay_until_others_come(sessions: Sessions) -> None:
    session = sessions.open()
    _, shown = show(session)
    waiting, later = (session.new_folder() / "scan.tif" for _ in range(2))
    for file in (waiting, later):
        file.touch()
        session.wait_for_reading((file,))
    assert shown.exists()
    assert not waiting.exists()
    assert later.exists()
    options = RunOptions(unit="um")
    session.show(opened(), (later,), options)
    assert not shown.exists()
    session.show(opened(), (later,), RunOptions())
    assert later.exists()
    assert session.openings == 3
    show(session)
    assert not later.exists()


def test_idle_sessions_are_swept(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, idle_seconds=0)
    sessions.open()
    assert sessions.sweep() == 1
    assert list(tmp_path.iterdir()) == []
    assert sessions.sweep() == 0


def test_a_page_that_is_loaded_again_finds_its_session(sessions: Sessions) -> None:
    session = sessions.enter(None)
    sessions.leave(session.token)
    assert sessions.enter(session.token) is session
    assert sessions.sweep() == 0
    assert sessions.enter("a token that never was") is not session


def test_a_session_ends_once_its_last_page_is_gone(sessions: Sessions) -> None:
    session = sessions.enter(None)
    sessions.enter(session.token)
    sessions.leave(session.token)
    assert sessions.sweep() == 0
    sessions.leave(session.token)
    sessions.leave("a token that never was")
    assert sessions.sweep() == 1


def test_a_left_session_is_kept_for_a_while(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, idle_seconds=1000, keep_seconds=500)
    session = sessions.enter(None)
    sessions.leave(session.token)
    assert sessions.sweep() == 0
    session.ends -= 500
    assert sessions.sweep() == 1


def test_no_path_has_a_token_in_it(sessions: Sessions) -> None:
    session = sessions.open()
    folder = session.new_folder()
    assert session.token not in str(folder)
    assert sessions.public(f"{folder}/scan.nii: expected 3 axes") == "scan.nii: expected 3 axes"


def test_a_new_volume_takes_the_place_of_the_old_one_and_of_its_result(sessions: Sessions) -> None:
    session = sessions.open()
    volume, file = show(session)
    found = result(session)
    session.take_result(found, volume)
    assert session.result is found
    again = result(session)
    session.take_result(again, volume)
    assert not found.folder.exists()
    run = session.start(until_cancelled)
    show(session)
    assert run.wait(10)
    assert run.progress.cancelled
    assert session.result is None
    assert not file.exists()
    assert not again.folder.exists()


def test_a_result_of_a_volume_that_is_gone_is_dropped(sessions: Sessions) -> None:
    session = sessions.open()
    volume, _ = show(session)
    show(session)
    late = result(session)
    with pytest.raises(CancelledError):
        session.take_result(late, volume)
    assert not late.folder.exists()


def correction_of(found: Result) -> Correction:
    """A correction that changed one voxel to 1."""
    mask = ShownMask(found.mask.source, LabelTable((Label(1, "vessel"),)), found.mask.box)
    correction = Correction(MemoryStore(), mask, "corrected")
    correction.paint(Stroke(1, 0, ((1, 2, 3),)))
    return correction


def with_result(session: Session) -> Result:
    """Show a volume and a result over it."""
    volume, _ = show(session)
    found = result(session)
    session.take_result(found, volume)
    return found


def test_other_files_of_the_shown_result_are_offered_in_place_of_the_first(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.open()
    found = with_result(session)
    files = {"mask.nii": tmp_path / "mask.nii"}
    revision = session.revision
    session.offer(files, found)
    assert session.result is not None
    assert session.result.files == files
    assert (session.result.mask, session.result.folder) == (found.mask, found.folder)
    assert session.revision == revision


def test_files_of_a_result_that_is_no_longer_shown_are_not_offered(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.open()
    late = with_result(session)
    shown = with_result(session)
    with pytest.raises(CancelledError):
        session.offer({"mask.nii": tmp_path / "mask.nii"}, late)
    assert session.result is shown
    session.close()
    with pytest.raises(CancelledError):
        session.offer({}, shown)


def test_a_correction_is_shown_in_place_of_the_mask(sessions: Sessions) -> None:
    session = sessions.open()
    found = with_result(session)
    assert not found.shown.read(Box.whole(GRID.shape)).any()
    revision = session.revision
    assert session.show_correction(correction_of(found), found) == revision + 1
    assert session.revision == revision + 1
    assert session.result is not None
    labels = session.result.shown.read(Box.whole(GRID.shape))
    assert np.argwhere(labels).tolist() == [[1, 2, 3]]
    assert session.result.mask is found.mask


def test_a_correction_of_a_result_that_is_gone_is_closed(sessions: Sessions) -> None:
    session = sessions.open()
    late = with_result(session)
    correction = correction_of(late)
    shown = with_result(session)
    with pytest.raises(CancelledError):
        session.show_correction(correction, late)
    with pytest.raises(ValueError, match="closed"):
        correction.read(Box.whole(GRID.shape))
    assert session.result is shown
    assert shown.correction is None


def test_a_result_goes_with_its_correction(sessions: Sessions) -> None:
    session = sessions.open()
    found = with_result(session)
    correction = correction_of(found)
    session.show_correction(correction, found)
    show(session)
    assert session.result is None
    assert not found.folder.exists()
    with pytest.raises(ValueError, match="closed"):
        correction.read(Box.whole(GRID.shape))


def until_cancelled(progress: RunProgress) -> None:
    """Work that ends when it is cancelled."""
    while True:
        progress.advance(0)
        threading.Event().wait(0.001)


def test_one_run_at_a_time_unless_it_was_cancelled(sessions: Sessions) -> None:
    session = sessions.open()
    assert not session.cancel()
    first = session.start(until_cancelled)
    with pytest.raises(UsageError, match="one at a time"):
        session.start(until_cancelled)
    assert session.cancel()
    assert first.wait(10)
    with pytest.raises(CancelledError):
        first.check()
    second = session.start(lambda progress: progress.stage("score", 1))
    assert second.wait(10)
    second.check()
    assert not session.cancel()
    assert session.start(lambda _: None).wait(10)


def test_a_run_whose_files_went_with_its_session_was_cancelled(sessions: Sessions) -> None:
    session = sessions.open()
    ended = threading.Event()

    def work(_: RunProgress) -> None:
        ended.wait(10)
        (session.folder / "mask").write_bytes(b"")

    run = session.start(work)
    sessions.end(session)
    ended.set()
    assert run.wait(10)
    with pytest.raises(CancelledError):
        run.check()


def test_progress_counts_the_tiles_of_a_stage_and_stops_when_asked() -> None:
    progress = RunProgress()
    progress.stage("score", 5)
    progress.advance(2)
    assert (progress.state, progress.done, progress.tiles) == ("score", 2, 5)
    progress.stage("write")
    assert progress.done == 0
    progress.cancel()
    with pytest.raises(CancelledError):
        progress.stage("next")
