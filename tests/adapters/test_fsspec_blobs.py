"""FsspecBlobs keeps the BlobStore contract, and a process that dies leaves nothing under a blob's name."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from voxport.adapters.blobs.fsspec import FsspecBlobs
from voxport.domain.errors import OutputError
from voxport.ports.blobs import BlobStore
from voxport.testing.blobs import BlobStoreContract


class TestLocalFolder(BlobStoreContract):
    def make_store(self) -> BlobStore:
        return FsspecBlobs(f"file://{self.folder}/blobs")

    def leftovers(self) -> list[str]:
        return [str(path) for path in (self.folder / "blobs" / ".parts").iterdir()]


class TestAnotherFileSystem(BlobStoreContract):
    """fsspec's own in memory stands for the object stores that it knows."""

    def make_store(self) -> BlobStore:
        self.url = f"memory://{uuid.uuid4()}"
        return FsspecBlobs(self.url)

    def leftovers(self) -> list[str]:
        return list(FsspecBlobs(self.url).names(".parts"))


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"a file in the folder's place")
    with pytest.raises(OutputError, match=r"a/b: expected a place with room"):
        FsspecBlobs(f"file://{tmp_path}/blobs").put("a/b", io.BytesIO(b"x"))


def test_blobs_are_where_the_url_says_under_their_own_names(tmp_path: Path) -> None:
    FsspecBlobs(f"file://{tmp_path}/some blobs").put("a/b.nii.gz", io.BytesIO(b"x"))
    assert (tmp_path / "some blobs" / "a" / "b.nii.gz").read_bytes() == b"x"


def test_a_process_killed_while_it_writes_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    code = (
        "import io, os, signal, sys\nfrom voxport.adapters.blobs.fsspec import FsspecBlobs\n"
        "class Deadly(io.BytesIO):\n"
        "    def read(self, size=-1):\n"
        "        if self.tell() > 2**21:\n            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().read(size)\n"
        "FsspecBlobs(sys.argv[1]).put('a/b', Deadly(bytes(2**23)))"
    )
    url = f"file://{tmp_path}/blobs"
    killed = subprocess.run([sys.executable, "-c", code, url], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    store = FsspecBlobs(url)
    assert not store.exists("a/b")
    assert store.names("a") == ()


def test_what_killed_processes_left_half_written_is_deleted_a_day_later(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/blobs"
    FsspecBlobs(url).put("a", io.BytesIO(b"x"))
    parts = tmp_path / "blobs" / ".parts"
    for name, age_seconds in (("old", 90_000), ("young", 3_600)):
        (parts / name).write_bytes(b"half")
        then = time.time() - age_seconds
        os.utime(parts / name, (then, then))
    FsspecBlobs(url).put("b", io.BytesIO(b"x"))
    assert [path.name for path in parts.iterdir()] == ["young"]


def test_a_folder_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    store = FsspecBlobs(f"file://{tmp_path}/blobs")
    store.put("a/b", io.BytesIO(b"x"))
    shutil.rmtree(tmp_path / "blobs")
    store.put("a/b", io.BytesIO(b"y"))
    assert (tmp_path / "blobs" / "a" / "b").read_bytes() == b"y"


def test_a_new_folder_is_for_this_user_alone_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("new", "shared"):
        folder = tmp_path / name
        if name == "shared":
            folder.mkdir()
            folder.chmod(0o775)
        FsspecBlobs(str(folder)).put("a/b", io.BytesIO(b"x"))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o775
