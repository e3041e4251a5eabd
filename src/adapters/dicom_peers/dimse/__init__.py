"""A peer that is spoken to by DIMSE: objects are sent by C-STORE and looked for by C-FIND."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ....ports.dicom_peer import DicomPeer
from ...arrays import package

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_SUCCESS, _PENDING = 0x0000, (0xFF00, 0xFF01)
_WARNINGS = range(0xB000, 0xC000)  # the object is stored all the same (PS3.4 annex B.2.3)


class DimsePeer(DicomPeer):
    """`DicomPeer` that is reached at a host and port.

    Args:
        title: its application entity title.
        own_title: the title that calls it.
    """

    def __init__(self, title: str, host: str, port: int, own_title: str) -> None:
        self._title, self._host, self._port, self._own_title = title, host, port, own_title

    def has(self, file: Path) -> bool | None:
        pydicom, sops = package("pydicom", "medical", "DICOM"), package("pynetdicom.sop_class", "medical", "DICOM")
        header = pydicom.dcmread(file, stop_before_pixels=True)
        query = pydicom.Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(query, name, header[name].value)
        model = sops.StudyRootQueryRetrieveInformationModelFind
        with self._association([(model, None)]) as association:
            if not association.accepted_contexts:
                return None
            found = False
            for status, answer in association.send_c_find(query, model):
                if "Status" not in status:
                    raise ConnectionError(f"{self._title} ended the connection")
                if status.Status in _PENDING:
                    # some peers do not look at this key
                    found |= answer is not None and answer.get("SOPInstanceUID") == header.SOPInstanceUID
                elif status.Status != _SUCCESS:
                    return None
            return found

    def send(self, file: Path) -> None:
        pydicom = package("pydicom", "medical", "DICOM")
        header = pydicom.dcmread(file, stop_before_pixels=True)
        kind, syntax = header.SOPClassUID, header.file_meta.TransferSyntaxUID
        with self._association([(kind, [syntax])]) as association:
            if not association.accepted_contexts:
                raise ConnectionError(f"{self._title} takes no objects of the class {kind}; let it accept them")
            status = association.send_c_store(file)
        if "Status" not in status:
            raise ConnectionError(f"{self._title} ended the connection before it answered")
        if status.Status != _SUCCESS and status.Status not in _WARNINGS:
            raise ConnectionError(f"{self._title} refused the object with status 0x{status.Status:04X}")

    @contextmanager
    def _association(self, contexts: Sequence[tuple[Any, Any]]) -> Iterator[Any]:
        """An association; without accepted contexts where the peer takes none of those given."""
        library = package("pynetdicom", "medical", "DICOM")
        entity = library.AE(self._own_title)
        entity.connection_timeout = _CONNECT_SECONDS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
        for kind, syntaxes in contexts:
            entity.add_requested_context(kind, syntaxes)
        received: list[str] = []
        note = (library.evt.EVT_PDU_RECV, lambda event: received.append(type(event.pdu).__name__))
        association = entity.associate(self._host, self._port, ae_title=self._title, evt_handlers=[note])
        try:
            # one whose contexts are all refused is aborted by the library, with those refused listed
            if not association.is_established and not association.rejected_contexts:
                # the library forgets that it was rejected where the peer closes the connection at once
                got = "refused the association" if "A_ASSOCIATE_RJ" in received else "cannot be reached"
                raise ConnectionError(f"{self._title} at {self._host}:{self._port} {got}")
            yield association
        except (RuntimeError, ValueError) as error:  # the library's, of an association that has ended meanwhile
            raise ConnectionError(f"{self._title} ended the association: {error}") from None
        finally:
            if association.is_established:
                association.release()
