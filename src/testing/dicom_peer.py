"""Contract suite of `DicomPeer`, and a peer that remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..ports.dicom_peer import DicomPeer


class DicomPeerContract:
    """Subclass and implement the hooks."""

    def make_peer(self) -> DicomPeer:
        """A peer that stores what is sent and answers questions, and has nothing of ``make_file``."""
        raise NotImplementedError

    def make_silent_peer(self) -> DicomPeer:
        """A peer that cannot be reached."""
        raise NotImplementedError

    def make_file(self, number: int) -> Path:
        """A DICOM file; another object for each number."""
        raise NotImplementedError

    def stored(self) -> list[bytes]:
        """The data sets of the objects that ``make_peer`` stored, in any order."""
        raise NotImplementedError

    def data_set(self, file: Path) -> bytes:
        """The data set of a file, as ``stored`` gives it."""
        raise NotImplementedError

    def test_what_is_sent_is_stored_whole(self) -> None:
        peer, files = self.make_peer(), [self.make_file(0), self.make_file(1)]
        for file in files:
            peer.send(file)
        assert sorted(self.stored()) == sorted(self.data_set(file) for file in files)

    def test_the_peer_has_what_it_was_sent_and_nothing_else(self) -> None:
        peer, sent, other = self.make_peer(), self.make_file(0), self.make_file(1)
        assert peer.has(sent) is False
        peer.send(sent)
        assert peer.has(sent) is True
        assert peer.has(other) is False

    def test_one_that_cannot_be_reached_is_an_error_of_the_connection(self) -> None:
        peer, file = self.make_silent_peer(), self.make_file(0)
        with pytest.raises(ConnectionError):
            peer.send(file)
        with pytest.raises(ConnectionError):
            peer.has(file)


class RecordingPeer(DicomPeer):
    """Keeps the bytes of the files that it is sent.

    Attributes:
        sent: the content of each file, in order; also of one that was sent twice.
        fails: whether it cannot be reached.
        answers: whether it answers questions.
        loses_answers: it stores what it is sent, and then the connection ends.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.fails = False
        self.answers = True
        self.loses_answers = False

    def has(self, file: Path) -> bool | None:
        self._check()
        return file.read_bytes() in self.sent if self.answers else None

    def send(self, file: Path) -> None:
        self._check()
        self.sent.append(file.read_bytes())
        if self.loses_answers:
            raise ConnectionError("the connection ended before the answer")

    def _check(self) -> None:
        if self.fails:
            raise ConnectionError("the peer cannot be reached")
