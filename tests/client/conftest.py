"""A client of the real application in this process, and servers that are rude."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from starlette.testclient import TestClient
from voxport.application import Application
from voxport.client import Client
from voxport.entrypoints.rest.app import create_app
from voxport.testing.job_queue import wait_until

from tests.rest.conftest import named_model


@pytest.fixture(scope="module")
def transport(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.BaseTransport]:
    """Calls the application, with three models and a worker, without a socket."""
    folder = tmp_path_factory.mktemp("service")
    for name, version in (("two-photon-vessels", "1.0.0"), ("two-photon-vessels", "1.1.0"), ("kidneys", "2.0.0-rc.1")):
        named_model(folder / "models", name, version)
    (folder / "scratch").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        application = Application.build(
            model="two-photon-vessels", models_dir=folder / "models", scratch_dir=folder / "scratch"
        )
        with TestClient(create_app(application, runs_jobs=True)) as http:
            wait_until(lambda: {m["status"] for m in http.get("/v1/models").json()["models"]} == {"ready"})
            yield httpx.MockTransport(lambda request: _answer(http, request))


def _answer(http: TestClient, request: httpx.Request) -> httpx.Response:
    found = http.request(
        request.method, str(request.url), headers=list(request.headers.items()), content=request.content
    )
    return httpx.Response(found.status_code, headers=list(found.headers.items()), content=found.content)


@pytest.fixture
def client(transport: httpx.BaseTransport) -> Iterator[Client]:
    """A client of that application."""
    with Client(transport=transport) as client:
        yield client


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the user's own."""
    monkeypatch.delenv("VOXPORT_API_KEY", raising=False)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """See `write_scan`."""
    return write_scan(tmp_path)


def write_scan(folder: Path) -> Path:
    """A uint8 volume, 21 x 18 x 13, oblique, in micrometres, under a name that says who it is."""
    values = np.random.default_rng(3).integers(0, 256, (21, 18, 13), np.uint8)
    affine = np.array([[-0.5, 0.1, 0, 20], [0, 0.05, 1.5, -7], [0, -0.7, 0.1, 3], [0, 0, 0, 1]])
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("micron")
    image.set_sform(affine, 2)
    nib.save(image, folder / "Doe_Jane_1970.nii.gz")
    return folder / "Doe_Jane_1970.nii.gz"


def problem(status: int, kind: str, **headers: str) -> httpx.Response:
    """A refusal of voxport's."""
    body = {"type": f"urn:voxport:problem:{kind}", "title": "A title", "detail": "a detail"}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"} | headers)


def raw_problem(status: int, kind: str, **headers: str) -> bytes:
    """The same as bytes on the wire."""
    answer = problem(status, kind, Connection="close", **headers)
    lines = [f"HTTP/1.1 {status} ?", *(f"{name}: {value}" for name, value in answer.headers.items()), "", ""]
    return "\r\n".join(lines).encode() + answer.content


def form_of(request: httpx.Request) -> dict[str, list[str]]:
    """The fields of a multipart form, and the names of its volumes under ``files``."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    fields: dict[str, list[str]] = {}
    for part in message_from_bytes(head + request.content).get_payload():
        assert not isinstance(part, str)
        text, name = part.get_payload(decode=True), part.get_filename()
        assert isinstance(text, bytes)
        field = str(part.get_param("name", header="Content-Disposition"))
        fields.setdefault("files" if name else field, []).append(name or text.decode())
    return fields


@contextmanager
def rude(answer: bytes, read: bytes = b"\r\n\r\n") -> Iterator[str]:
    """A server that reads up to some bytes, answers, and hangs up; without an answer it stays and is silent."""
    done = threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            seen = b""
            while read not in seen and (more := connection.recv(2**16)):
                seen += more
            connection.sendall(answer)
            if not answer:
                done.wait(10)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            done.set()
            thread.join(10)
