"""Contract suite of `BlobStore`, and a store in memory."""

from __future__ import annotations

import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

import pytest

from ..domain.errors import InputError, OutputError, UsageError
from ..ports.blobs import BlobStore, check_blob_name, missing_blob

_BAD_NAMES = ("", "/", "../x", "a/../../x", "a//b", "/etc/passwd", "a/.", "a\\b", "a\nb", "a/")


class BlobStoreContract:
    """Subclass and implement the hooks. ``folder`` is an empty folder for the test."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _fresh_store(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.store = self.make_store()

    def make_store(self) -> BlobStore:
        """Return an empty store."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Return everything stored beside blobs, e.g. partial files."""
        raise NotImplementedError

    @pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 40_000])
    def test_what_was_put_is_what_is_read(self, content: bytes, tmp_path: Path) -> None:
        digest = self.store.put("case/inputs/scan.nii.gz", io.BytesIO(content))
        assert digest == hashlib.sha256(content).hexdigest()
        with self.store.open("case/inputs/scan.nii.gz") as stream:
            assert stream.read() == content
        assert self.store.fetch("case/inputs/scan.nii.gz", tmp_path / "copy") == digest
        assert (tmp_path / "copy").read_bytes() == content
        assert self.leftovers() == []

    def test_a_local_file_is_put_as_its_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "local").write_bytes(b"content")
        assert self.store.put("a", tmp_path / "local") == hashlib.sha256(b"content").hexdigest()
        assert self._read("a") == b"content"

    def test_a_file_that_is_taken_is_a_blob_and_no_longer_a_file(self, tmp_path: Path) -> None:
        self.store.put("a/b", io.BytesIO(b"a longer first version"))
        for place in (nullcontext(tmp_path), self.store.staging() or nullcontext(tmp_path)):
            with place as folder:
                content = f"from {folder}".encode()
                (folder / "upload").write_bytes(content)
                self.store.take("a/b", folder / "upload", hashlib.sha256(content).hexdigest())
                assert self._read("a/b") == content
                assert not (folder / "upload").exists()
        assert self.leftovers() == []

    def test_a_staging_folder_is_deleted_with_its_files(self) -> None:
        if (staging := self.store.staging()) is not None:
            with staging as folder:
                (folder / "upload").write_bytes(b"never taken")
            assert not folder.exists()
        assert self.leftovers() == []

    def test_a_file_that_cannot_be_taken_stays_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "upload").write_bytes(b"content")
        with pytest.raises(UsageError):
            self.store.take("../a", tmp_path / "upload", hashlib.sha256(b"content").hexdigest())
        assert (tmp_path / "upload").read_bytes() == b"content"

    def test_a_linked_blob_is_read_at_its_path_and_outlives_the_path(self, tmp_path: Path) -> None:
        digest = self.store.put("a/b", io.BytesIO(b"content"))
        assert self.store.link("a/b", tmp_path / "linked") == digest
        assert (tmp_path / "linked").read_bytes() == b"content"
        (tmp_path / "linked").unlink()
        assert self._read("a/b") == b"content"
        with pytest.raises(InputError):
            self.store.link("a/c", tmp_path / "missing")
        assert not (tmp_path / "missing").is_symlink()
        with pytest.raises(UsageError):
            self.store.link("../a", tmp_path / "missing")

    def test_putting_again_replaces(self) -> None:
        self.store.put("a/b", io.BytesIO(b"a longer first version"))
        self.store.put("a/b", io.BytesIO(b"second"))
        assert self._read("a/b") == b"second"

    def test_an_open_blob_outlives_its_replacement(self) -> None:
        self.store.put("a", io.BytesIO(b"first"))
        with self.store.open("a") as stream:
            self.store.put("a", io.BytesIO(b"second"))
            assert stream.read() == b"first"

    def test_a_stream_that_breaks_leaves_what_was_there(self) -> None:
        self.store.put("a", io.BytesIO(b"first"))
        with pytest.raises(ZeroDivisionError):
            self.store.put("a", _Breaking(b"begin"))
        assert self._read("a") == b"first"
        with pytest.raises(ZeroDivisionError):
            self.store.put("b", _Breaking(b"begin"))
        assert not self.store.exists("b")
        assert self.leftovers() == []

    def test_names_are_listed_by_prefix_and_whole_words(self) -> None:
        for name in ("a/c/2", "a/b", "ab/c", "a/c/1"):
            self.store.put(name, io.BytesIO(b"x"))
        assert self.store.names("a") == ("a/b", "a/c/1", "a/c/2")
        assert self.store.names("a/c") == ("a/c/1", "a/c/2")
        assert self.store.names("nothing") == ()

    def test_deleting_takes_what_is_below_and_nothing_beside(self) -> None:
        for name in ("a/b", "a/c/d", "ab/c"):
            self.store.put(name, io.BytesIO(b"x"))
        self.store.delete_prefix("a")
        self.store.delete_prefix("a")
        assert not self.store.exists("a/b")
        assert not self.store.exists("a/c/d")
        assert self.store.exists("ab/c")

    def test_a_missing_blob_is_an_input_error(self, tmp_path: Path) -> None:
        assert not self.store.exists("a")
        with pytest.raises(InputError, match="a: expected a stored file"):
            self.store.open("a")
        with pytest.raises(InputError):
            self.store.fetch("a", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()

    @pytest.mark.parametrize("name", _BAD_NAMES)
    def test_a_name_that_leads_elsewhere_is_a_usage_error(self, name: str, tmp_path: Path) -> None:
        for use in (
            lambda: self.store.put(name, io.BytesIO(b"x")),
            lambda: self.store.open(name),
            lambda: self.store.fetch(name, tmp_path / "copy"),
            lambda: self.store.delete_prefix(name),
        ):
            with pytest.raises(UsageError, match="blob name"):
                use()

    def test_several_threads_put_one_name_and_one_of_them_stays(self) -> None:
        contents = [bytes([number]) * 100_000 for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda content: self.store.put("a/b", io.BytesIO(content)), contents))
        assert self._read("a/b") in contents
        assert self.leftovers() == []

    def _read(self, name: str) -> bytes:
        with self.store.open(name) as stream:
            return stream.read()


class _Breaking(io.BytesIO):
    """A stream that fails after its bytes."""

    def read(self, size: int | None = -1) -> bytes:
        if content := super().read(size):
            return content
        raise ZeroDivisionError


class MemoryBlobs:
    """A `BlobStore` in ``contents`` by name; writing fails while ``full`` is set."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.full = False
        self._lock = threading.Lock()

    def put(self, name: str, content: Path | IO[bytes]) -> str:
        check_blob_name(name)
        given = content.read_bytes() if isinstance(content, Path) else b"".join(iter(lambda: content.read(2**20), b""))
        if self.full:
            raise OutputError.cannot_write(name, "no space left on device")
        with self._lock:
            self.contents[name] = given
        return hashlib.sha256(given).hexdigest()

    def staging(self) -> AbstractContextManager[Path] | None:
        return None

    def take(self, name: str, file: Path, sha256: str) -> None:  # noqa: ARG002 - the port's signature
        self.put(name, file)
        file.unlink()

    def link(self, name: str, destination: Path) -> str:
        return self.fetch(name, destination)

    def fetch(self, name: str, destination: Path) -> str:
        content = self._content(name)
        destination.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self._content(name))

    def exists(self, name: str) -> bool:
        return name in self.contents

    def names(self, prefix: str) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(name for name in self.contents if name.startswith(f"{prefix}/")))

    def delete_prefix(self, prefix: str) -> None:
        check_blob_name(prefix)
        for name in self.names(prefix):
            del self.contents[name]

    def _content(self, name: str) -> bytes:
        check_blob_name(name)
        try:
            return self.contents[name]
        except KeyError:
            raise missing_blob(name) from None
