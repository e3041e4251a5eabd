"""Scratch files keep the contract of a Scratch, take their space at once, and have no name."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from voxport.adapters.scratch.files import ScratchFiles
from voxport.domain.errors import LimitError, NoSpaceError
from voxport.ports.scratch import Scratch
from voxport.testing.scratch import ScratchContract

ROOT = Path(__file__).resolve().parents[2]


class TestScratchFiles(ScratchContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        self.folder = tmp_path_factory.mktemp("scratch")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def make_scratch(self) -> Scratch:
        return ScratchFiles(self.folder)

    def make_full_scratch(self) -> Scratch:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return ScratchFiles(self.folder)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]


def test_without_a_folder_the_systems_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(NoSpaceError, match="missing: expected room for 32 bytes"):
        ScratchFiles().buffer((2, 2), np.int64)


def test_space_is_taken_at_once(tmp_path: Path) -> None:
    with ScratchFiles(tmp_path).buffer((64, 64), np.int64) as buffer:
        status = os.fstat(buffer._file.fileno())
    assert status.st_size == 64 * 64 * 8
    assert status.st_blocks * 512 >= status.st_size


def test_where_space_cannot_be_taken_a_file_is_as_long_as_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    with ScratchFiles(tmp_path).buffer((4, 4), np.int64) as buffer:
        assert not buffer.read(slice(0, 4), slice(0, 4)).any()


def test_a_disk_that_is_too_small_whatever_is_freed_is_a_limit(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="got a disk of") as caught:
        ScratchFiles(tmp_path).buffer((2**31, 2**31), np.int64)
    assert not isinstance(caught.value, NoSpaceError)


@pytest.mark.parametrize("call", ["preadv", "pwritev"])
def test_a_disk_that_fails_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with ScratchFiles(tmp_path).buffer((4, 4), np.int64) as buffer:
        monkeypatch.setattr(os, call, failing)
        with pytest.raises(NoSpaceError, match="got Input/output error"):
            buffer.write(slice(0, 4), slice(0, 4), buffer.read(slice(0, 4), slice(0, 4)))


def test_a_file_that_another_program_cut_short_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    with ScratchFiles(tmp_path).buffer((4, 4), np.int64) as buffer:
        os.truncate(buffer._file.fileno(), 8)
        with pytest.raises(NoSpaceError, match="cut short"):
            buffer.read(slice(0, 4), slice(0, 4))


def test_what_a_disk_takes_in_parts_is_whole_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda file, parts, position: whole(file, [parts[0][:7]], position))
    values = np.arange(16).reshape(4, 4)
    with ScratchFiles(tmp_path).buffer((4, 4), np.int64) as buffer:
        buffer.write(slice(0, 4), slice(0, 4), values)
        np.testing.assert_array_equal(buffer.read(slice(0, 4), slice(0, 4)), values)


_MOUNTED = """
import sys
import numpy as np
from voxport.adapters.scratch.files import ScratchFiles
from voxport.domain.errors import LimitError
from pathlib import Path
try:
    ScratchFiles(Path(sys.argv[1])).buffer((512, 512), np.int64)
except LimitError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("options", "fill", "kind", "words"),
    [
        ("size=1m", "", "LimitError", "got a disk of 1048576"),
        ("size=3m", "head -c 2m /dev/zero > place/ballast;", "NoSpaceError", "o space"),
        ("ro", "", "NoSpaceError", "ead-only"),
    ],
)
def test_a_disk_that_is_small_full_or_read_only(tmp_path: Path, options: str, fill: str, kind: str, words: str) -> None:
    (tmp_path / "place").mkdir()
    script = f"mount -t tmpfs -o {options} none place && {{ {fill} exec {sys.executable} -c '{_MOUNTED}' place; }}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{kind} place: expected room for 2097152 bytes"), done.stdout
    assert words in done.stdout
