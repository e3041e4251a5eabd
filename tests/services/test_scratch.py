"""Folders of runs go with their process, whichever way it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from voxport.domain.errors import OutputError
from voxport.services.scratch import clear_scratch, scratch_folder

_HOLD = """
import sys, time
from pathlib import Path
from voxport.services.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "volume.nii").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_new_and_gone_afterwards(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as one, scratch_folder(tmp_path) as other:
        assert one != other
        (one / "sub").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="scratch folder"), scratch_folder(tmp_path / "missing"):
        pass


def test_a_folder_that_another_process_took_for_a_dead_ones_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, before = fcntl.flock, iter([lambda: clear_scratch(tmp_path)])

    def quicker(descriptor: int, operation: int) -> None:
        next(before, lambda: 0)()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", quicker)
    with scratch_folder(tmp_path) as folder:
        assert (folder / ".lock").exists()
        assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("step", ["made", "locked"])
def test_a_folder_whose_lock_cannot_be_made_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    open_file = os.open

    def full(*given: object, **options: object) -> int:
        if step == "made" and isinstance(given[1], int) and not given[1] & os.O_CREAT:  # as who deletes the folder
            return open_file(*given, **options)  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"made": (os, "open"), "locked": (fcntl, "flock")}[step], full)
    with pytest.raises(OutputError, match="no space left"), scratch_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "voxport-run-of-somebody").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with scratch_folder(tmp_path) as own:
            assert clear_scratch(tmp_path) == 0
            assert (held / "volume.nii").exists()
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert clear_scratch(tmp_path) == 1
            assert not held.exists()
            assert own.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["voxport-run-of-somebody"]
