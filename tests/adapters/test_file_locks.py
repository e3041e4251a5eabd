"""Locks on files keep the contract, survive a deleted file, and go with their process."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from voxport.adapters.locks.files import FileLocks
from voxport.ports.locks import Locks
from voxport.testing.locks import LocksContract

_HOLD = """
import sys
from pathlib import Path
from voxport.adapters.locks.files import FileLocks
with FileLocks().hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class TestFileLocks(LocksContract):
    def make_locks(self) -> Locks:
        return FileLocks()


@pytest.mark.parametrize("whole_folder", [False, True])
def test_a_file_that_its_last_holder_deleted_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_folder: bool
) -> None:
    path, flock, tries = tmp_path / "state" / "lock", fcntl.flock, list[int]()

    def late(descriptor: int, operation: int) -> None:
        tries.append(descriptor)
        if len(tries) == 1:
            shutil.rmtree(path.parent) if whole_folder else path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with FileLocks().hold(path, wait=False) as held:
        assert held
        assert len(tries) == 2
        assert path.exists()


def test_a_lock_that_the_system_refuses_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(OSError, match="No locks available"), FileLocks().hold(tmp_path / "lock"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with FileLocks().hold(tmp_path / "lock", wait=False) as held:
            assert not held
        process.kill()
        process.wait()
        with FileLocks().hold(tmp_path / "lock") as held:
            assert held
