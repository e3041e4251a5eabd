"""Peers by DIMSE and DICOMweb: an archive that pynetdicom makes, and a real Orthanc by both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from voxport.adapters.dicom_peers.dicomweb import DicomWebPeer
from voxport.adapters.dicom_peers.dimse import DimsePeer
from voxport.ports.dicom_peer import DicomPeer
from voxport.testing.dicom_peer import DicomPeerContract, RecordingPeer

from tests.dicom.network import Archive
from tests.dicom.orthanc import Orthanc, running_orthanc
from tests.dicom.series import as_new_series, head_ct
from tests.rest.serving import free_port

# pynetdicom leaves sockets that could not connect to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def _plain(dataset: Any) -> bytes:
    """A data set's elements, whatever the transfer syntax that it came in."""
    return str(dataset.to_json(suppress_invalid_tags=True)).encode()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


class _Files:
    @pytest.fixture(autouse=True)
    def _series(self, tmp_path: Path) -> None:
        self.files = as_new_series(tmp_path, head_ct()[:2])

    def make_file(self, number: int) -> Path:
        return self.files[number]

    def data_set(self, file: Path) -> bytes:
        return _plain(pydicom.dcmread(file))

    def make_silent_peer(self) -> DicomPeer:
        return DimsePeer("NOBODY", "127.0.0.1", free_port(), "VOXPORT")


class TestDimsePeer(_Files, DicomPeerContract):
    @pytest.fixture(autouse=True)
    def _archive(self) -> Iterator[None]:
        with Archive().running() as self.archive:
            yield

    def make_peer(self) -> DicomPeer:
        return DimsePeer("ARCHIVE", "127.0.0.1", self.archive.port, "VOXPORT")

    def stored(self) -> list[bytes]:
        return [_plain(dataset) for dataset in self.archive.sent]

    def test_one_that_refuses_an_object_is_told_with_its_status(self) -> None:
        self.archive.status = 0xA700
        with pytest.raises(ConnectionError, match="0xA700"):
            self.make_peer().send(self.make_file(0))

    def test_one_that_ends_the_association_is_told(self) -> None:
        """It stores the object, and aborts before it has answered."""
        peer = self.make_peer()
        self.archive.before_answer = lambda: [found.abort() for found in self.archive.associations()]
        with pytest.raises(ConnectionError, match="ended the"):
            peer.send(self.make_file(0))

    def test_a_title_that_it_does_not_know_is_refused(self) -> None:
        peer = DimsePeer("OTHER", "127.0.0.1", self.archive.port, "VOXPORT")
        peer.send(self.make_file(0))  # pynetdicom's server answers to every title
        assert len(self.archive.sent) == 1


class _InOrthanc(_Files):
    @pytest.fixture(autouse=True)
    def _empty(self, orthanc: Orthanc) -> None:
        self.orthanc = orthanc
        with orthanc.client() as client:
            for study in client.get("/studies").json():
                client.delete(f"/studies/{study}")

    def stored(self) -> list[bytes]:
        return [_plain(pydicom.dcmread(BytesIO(file))) for file in self.orthanc.files()]


class TestOrthancByDimse(_InOrthanc, DicomPeerContract):
    def make_peer(self) -> DicomPeer:
        return DimsePeer("ORTHANC", "127.0.0.1", self.orthanc.port, "VOXPORT")

    @pytest.mark.parametrize("forgotten", [False, True])
    def test_another_title_is_refused(self, forgotten: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """The library may forget that it was rejected, as Orthanc closes the connection at once."""
        if forgotten:
            flag = property(lambda _: False, lambda *_: None)
            monkeypatch.setattr("pynetdicom.association.Association.is_rejected", flag, raising=False)
        with pytest.raises(ConnectionError, match="refused the association"):
            DimsePeer("OTHER", "127.0.0.1", self.orthanc.port, "VOXPORT").send(self.make_file(0))


class TestOrthancByDicomWeb(_InOrthanc, DicomPeerContract):
    def make_peer(self) -> DicomPeer:
        return DicomWebPeer(self.orthanc.web["url"])

    def make_silent_peer(self) -> DicomPeer:
        return DicomWebPeer(f"http://127.0.0.1:{free_port()}/dicom-web")

    def test_an_answer_that_is_an_error_is_told(self) -> None:
        with pytest.raises(ConnectionError, match=r"answered 404|has not stored"):
            DicomWebPeer(f"http://127.0.0.1:{self.orthanc.http_port}/elsewhere").send(self.make_file(0))


class TestRecordingPeer(_Files, DicomPeerContract):
    def make_peer(self) -> DicomPeer:
        self.peer = RecordingPeer()
        return self.peer

    def make_silent_peer(self) -> DicomPeer:
        peer = RecordingPeer()
        peer.fails = True
        return peer

    def stored(self) -> list[bytes]:
        return [_plain(pydicom.dcmread(BytesIO(content))) for content in self.peer.sent]


@pytest.mark.parametrize("answers", [True, False])
def test_a_peer_without_queries_does_not_say_what_it_has(tmp_path: Path, answers: bool) -> None:
    (file,) = as_new_series(tmp_path, head_ct()[:1])
    with ExitStack() as stack:
        archive = stack.enter_context(Archive(answers_questions=answers).running())
        peer = DimsePeer("ARCHIVE", "127.0.0.1", archive.port, "VOXPORT")
        peer.send(file)
        assert peer.has(file) is (True if answers else None)
