"""A peer that is spoken to by DICOMweb: objects are sent by STOW-RS and looked for by QIDO-RS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ....ports.dicom_peer import DicomPeer
from ...arrays import package

_SOP_INSTANCE_UID = "00080018"
_SECONDS = (10.0, 60.0)  # to connect, and for an answer


class DicomWebPeer(DicomPeer):
    """`DicomPeer` below a URL. It follows no redirect and asks no proxy.

    Args:
        url: the root of its services, e.g. ``https://pacs.example/dicom-web``.
        token: sent as a bearer token; None for none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url, self._token = url, token

    def has(self, file: Path) -> bool | None:
        header = package("pydicom", "medical", "DICOM").dcmread(file, stop_before_pixels=True)
        names = header.StudyInstanceUID, header.SeriesInstanceUID
        with self._client() as client:
            found = client.search_for_instances(*names, search_filters={"SOPInstanceUID": header.SOPInstanceUID})
        return any(header.SOPInstanceUID in item.get(_SOP_INSTANCE_UID, {}).get("Value", ()) for item in found)

    def send(self, file: Path) -> None:
        dataset = package("pydicom", "medical", "DICOM").dcmread(file)
        with self._client() as client:
            answer = client.store_instances([dataset], dataset.StudyInstanceUID)
        stored = {item.ReferencedSOPInstanceUID for item in answer.get("ReferencedSOPSequence") or ()}
        if dataset.SOPInstanceUID not in stored:
            raise ConnectionError(f"{self._host} has not stored the object")

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc.rpartition("@")[2]

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A client; what fails in it is a ConnectionError."""
        web, requests = package("dicomweb_client", "medical", "DICOM"), package("requests", "medical", "DICOM")
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        with requests.Session() as session:
            session.trust_env, session.max_redirects = False, 0
            try:
                client = web.DICOMwebClient(self._url, session=session, headers=headers, timeout=_SECONDS)
                client.set_http_retry_params(retry=False)  # else it would send an object twice by itself
                yield client
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else "an error"
                raise ConnectionError(f"{self._host} answered {status}") from None
            except (requests.RequestException, ValueError) as error:
                raise ConnectionError(f"{self._host} cannot be reached: {type(error).__name__}") from None
