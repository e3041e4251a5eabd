"""Folders of runs go with their process, whichever way it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.scratch.folders import ScratchFolders
from voxport.domain.errors import OutputError
from voxport.ports.folders import WorkFolders
from voxport.testing.folders import WorkFoldersContract

_HOLD = """
import sys
from pathlib import Path
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.scratch.folders import ScratchFolders
with ScratchFolders(Path(sys.argv[1]), FileLocks()).new() as folder:
    (folder / "volume.nii").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def folders(parent: Path) -> ScratchFolders:
    return ScratchFolders(parent, FileLocks())


class TestScratchFolders(WorkFoldersContract):
    def make_folders(self, parent: Path) -> WorkFolders:
        return folders(parent)


def test_a_folder_that_another_process_took_for_a_dead_ones_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, before = fcntl.flock, iter([lambda: folders(tmp_path).clear()])

    def quicker(descriptor: int, operation: int) -> None:
        next(before, lambda: 0)()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", quicker)
    with folders(tmp_path).new() as folder:
        assert (folder / ".lock").exists()
        assert folder.stat().st_mode & 0o077 == 0
        assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("step", [(os, "open"), (fcntl, "flock")], ids=["made", "locked"])
def test_a_folder_whose_lock_cannot_be_made_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[object, str]
) -> None:
    open_file = os.open

    def full(*given: object, **options: object) -> int:
        if step[1] == "open" and isinstance(given[1], int) and not given[1] & os.O_CREAT:  # to delete the folder
            return open_file(*given, **options)  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*step, full)
    with pytest.raises(OutputError, match="no space left"), folders(tmp_path).new():
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_cleared_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "voxport-run-of-somebody").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with folders(tmp_path).new() as own:
            assert folders(tmp_path).clear() == 0
            assert (held / "volume.nii").exists()
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert folders(tmp_path).clear() == 1
            assert not held.exists()
            assert own.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["voxport-run-of-somebody"]
