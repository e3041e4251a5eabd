"""The contract that every ArtifactWriter keeps, as a pytest class to subclass, and a writer in memory."""

# ruff: noqa: D102 - a test's name is the promise that it checks

from __future__ import annotations

from collections.abc import Collection

import pytest

from ..domain.errors import OutputError
from ..ports.artifacts import ArtifactWriter


class ArtifactWriterContract:
    """Subclass it and fill in the hooks; they look at what was written without the adapter."""

    def make_writer(self) -> ArtifactWriter:
        """A writer."""
        raise NotImplementedError

    def reference(self, name: str) -> str:
        """A reference at which nothing is stored yet."""
        raise NotImplementedError

    def bad_reference(self) -> str:
        """A reference that cannot be written."""
        raise NotImplementedError

    def peek(self, reference: str) -> bytes | None:
        """What is stored under a reference, read without the adapter; None if nothing is."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Everything that is stored under names that were not asked for."""
        raise NotImplementedError

    @pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 1000])
    def test_what_is_written_is_what_is_stored(self, content: bytes) -> None:
        reference = self.reference("result.bin")
        self.make_writer().write(reference, content)
        assert self.peek(reference) == content
        assert self.leftovers() == []

    def test_writing_again_replaces(self) -> None:
        reference = self.reference("result.bin")
        self.make_writer().write(reference, b"a longer first version")
        self.make_writer().write(reference, b"second")
        assert self.peek(reference) == b"second"

    def test_checking_writes_nothing(self) -> None:
        reference = self.reference("result.bin")
        self.make_writer().check(reference)
        assert self.peek(reference) is None
        assert self.leftovers() == []

    def test_checking_leaves_an_older_version_alone(self) -> None:
        reference = self.reference("result.bin")
        self.make_writer().write(reference, b"first")
        self.make_writer().check(reference)
        assert self.peek(reference) == b"first"

    def test_a_place_that_cannot_be_written_is_told_by_the_check(self) -> None:
        with pytest.raises(OutputError, match="expected"):
            self.make_writer().check(self.bad_reference())

    def test_a_place_that_cannot_be_written_is_an_output_error(self) -> None:
        with pytest.raises(OutputError, match="expected"):
            self.make_writer().write(self.bad_reference(), b"content")
        assert self.leftovers() == []


class MemoryArtifacts:
    """An ArtifactWriter that keeps results in ``contents``, by reference; refuses the references in ``refused``."""

    def __init__(self, refused: Collection[str] = ()) -> None:
        self.contents: dict[str, bytes] = {}
        self._refused = refused

    def check(self, reference: str) -> None:
        """Raise OutputError for a reference that is refused."""
        if reference in self._refused:
            raise OutputError.cannot_write(reference, "one that is refused")

    def write(self, reference: str, content: bytes) -> None:
        """Keep the content. Raises OutputError for a reference that is refused."""
        self.check(reference)
        self.contents[reference] = content
