"""FsspecBlobs keeps the BlobStore contract, and a process that dies leaves nothing under a blob's name."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from voxport.adapters.fsspec_blobs import FsspecBlobs
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
        "import io, os, signal, sys\nfrom voxport.adapters.fsspec_blobs import FsspecBlobs\n"
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
