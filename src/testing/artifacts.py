"""Contract suite of `ArtifactWriter`, and a writer in memory."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from ..domain.errors import OutputError
from ..ports.artifacts import ArtifactWriter


class ArtifactWriterContract:
    """Subclass and implement the hooks, without the adapter."""

    def make_writer(self) -> ArtifactWriter:
        """Return a writer."""
        raise NotImplementedError

    def reference(self, name: str) -> str:
        """Return an unused reference."""
        raise NotImplementedError

    def bad_reference(self) -> str:
        """Return a reference that cannot be written."""
        raise NotImplementedError

    def peek(self, reference: str) -> bytes | None:
        """Return the content stored under a reference, or None."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Return the names of stored files that no test requested."""
        raise NotImplementedError

    @pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 1000])
    def test_stored_bytes_equal_written_bytes(self, content: bytes) -> None:
        reference = self.reference("result.bin")
        self.make_writer().write(reference, content)
        assert self.peek(reference) == content
        assert self.leftovers() == []

    def test_writing_again_replaces(self) -> None:
        reference = self.reference("result.bin")
        self.make_writer().write(reference, b"a longer first version")
        self.make_writer().write(reference, b"second")
        assert self.peek(reference) == b"second"

    @pytest.mark.parametrize("older", [None, b"first"])
    def test_checking_leaves_what_is_there(self, older: bytes | None) -> None:
        reference = self.reference("result.bin")
        if older is not None:
            self.make_writer().write(reference, older)
        self.make_writer().check(reference)
        assert self.peek(reference) == older
        assert self.leftovers() == []

    def test_check_refuses_a_destination_that_cannot_be_written(self) -> None:
        with pytest.raises(OutputError, match="expected"):
            self.make_writer().check(self.bad_reference())

    def test_write_refuses_a_destination_that_cannot_be_written(self) -> None:
        with pytest.raises(OutputError, match="expected"):
            self.make_writer().write(self.bad_reference(), b"content")
        assert self.leftovers() == []


class MemoryArtifacts:
    """An `ArtifactWriter` that stores results in ``contents`` by reference, and refuses those in ``refused``."""

    def __init__(self, refused: Collection[str] = ()) -> None:
        self.contents: dict[str, bytes] = {}
        self._refused = refused

    def check(self, reference: str) -> None:
        if reference in self._refused:
            raise OutputError.cannot_write(reference, "one that is refused")

    def write(self, reference: str, content: bytes) -> None:
        self.check(reference)
        self.contents[reference] = content
