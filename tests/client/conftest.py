"""A client of a stand-in server: over a socket, and in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from starlette.types import ASGIApp
from voxport.client import Client

from .standin import Standin, serving


class InProcess(httpx.BaseTransport):
    """Calls an app without a socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._transport = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._transport.handle_async_request(request)
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        content = b"".join([chunk async for chunk in answer.stream])
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


@pytest.fixture(scope="session")
def app() -> ASGIApp:
    """The application that the contract is asked of."""
    return Standin().app()


@pytest.fixture(scope="session")
def server(app: ASGIApp) -> Iterator[str]:
    """The address of a server that keeps the contract; another one can be put here."""
    with serving(app) as url:
        yield url


@pytest.fixture(params=["socket", "in process"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of that server, and one of that application."""
    if request.param == "socket":
        with Client(request.getfixturevalue("server")) as client:
            yield client
    else:
        with Client(transport=InProcess(request.getfixturevalue("app"))) as client:
            yield client


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the user's own."""
    monkeypatch.delenv("VOXPORT_API_KEY", raising=False)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A uint8 volume, 21 x 18 x 13, oblique, in micrometres, under a name that says who it is."""
    values = np.random.default_rng(3).integers(0, 256, (21, 18, 13), np.uint8)
    affine = np.array([[-0.5, 0.1, 0, 20], [0, 0.05, 1.5, -7], [0, -0.7, 0.1, 3], [0, 0, 0, 1]])
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("micron")
    image.set_sform(affine, 2)
    path = tmp_path / "Doe_Jane_1970.nii.gz"
    nib.save(image, path)
    return path
