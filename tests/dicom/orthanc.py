"""Orthanc, an archive that hospitals have, as a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rest.serving import free_port

from .network import wait_until

_PLUGINS = Path("/usr/share/orthanc/plugins")


@dataclass
class Orthanc:
    """A running Orthanc."""

    http_port: int
    port: int
    log: Path

    @property
    def settings(self) -> dict[str, Any]:
        """How a node reaches it by C-STORE."""
        return {"aet": "ORTHANC", "host": "127.0.0.1", "port": self.port}

    @property
    def web(self) -> dict[str, Any]:
        """How a node reaches it by STOW-RS."""
        return {"url": f"http://127.0.0.1:{self.http_port}/dicom-web"}

    def client(self) -> httpx.Client:
        """A client of its own REST interface."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=60, trust_env=False)

    def files(self, modality: str | None = None) -> list[bytes]:
        """The DICOM files that it has, of all modalities or of one."""
        with self.client() as client:
            ids = client.get("/instances").json()
            tags = {id: client.get(f"/instances/{id}/simplified-tags").json() for id in ids}
            wanted = [id for id in ids if modality in (None, tags[id]["Modality"])]
            return [client.get(f"/instances/{id}/file").content for id in wanted]


@contextmanager
def running_orthanc(folder: Path, **modalities: list[Any]) -> Iterator[Orthanc]:
    """An Orthanc with an empty store in a folder, which knows these modalities: title, host, port."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not (_PLUGINS / "libOrthancDicomWeb.so").exists():
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed")
    found = Orthanc(free_port(), free_port(), folder / "orthanc.log")
    settings = {
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "HttpPort": found.http_port,
        "DicomPort": found.port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "DicomModalities": modalities,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowStore": True,
        # label maps are in DICOM since 2024, later than this Orthanc
        "UnknownSopClassAccepted": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(_PLUGINS / "libOrthancDicomWeb.so")],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with found.log.open("wb") as output:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _answers(found), lambda: found.log.read_text(encoding="utf-8")[-3000:], process)
        yield found
    finally:
        process.kill()
        process.wait()


def _answers(orthanc: Orthanc) -> bool:
    try:
        with orthanc.client() as client:
            return client.get("/system").status_code == 200
    except httpx.TransportError:
        return False
