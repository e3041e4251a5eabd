"""Every segmenter keeps the contract: one loaded model, this process, a server's requests, and a server's jobs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.application import Application
from voxport.client.segmenter import RemoteSegmenter
from voxport.domain.run import Outputs, RunOptions
from voxport.ports.segmenter import Segmenter
from voxport.ports.volume_store import VolumeStore
from voxport.services.segmentation.estimate import estimate_elsewhere
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources
from voxport.testing.segmenter import SegmenterContract

from tests.demo.conftest import save
from tests.rest.conftest import named_model
from tests.rest.serving import Server, running_server


class FileContract(SegmenterContract):
    """The contract on a file of 24 x 20 x 18 voxels."""

    @pytest.fixture
    def case(self, tmp_path: Path) -> str:
        values = np.random.default_rng(1).integers(0, 256, (24, 20, 18), np.uint8)
        return str(save(tmp_path / "scan.nii.gz", values, np.diag([-1.0, 1.0, 2.0, 1.0])))

    @pytest.fixture
    def volumes(self) -> VolumeStore:
        return NiftiStore()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    named_model(folder, "edges")
    named_model(folder, "many", classes=12)
    return folder


class TestLocalSegmenter(FileContract):
    @pytest.fixture
    def segmenter(self, models: Path, tmp_path: Path) -> Iterator[Segmenter]:
        application = Application.build(models_dir=models, model="edges", scratch_dir=tmp_path)
        application.served_models.start()
        yield application.segmenter
        application.served_models.close()


class TestLoadedSegmenter(FileContract):
    @pytest.fixture
    def segmenter(self, models: Path, tmp_path: Path) -> Iterator[Segmenter]:
        application = Application.build(models_dir=models, scratch_dir=tmp_path)
        with application.loaded_segmenter("edges") as segmenter:
            yield segmenter


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, "--models", str(models), "-m", "edges") as server:
        yield server


class TestRemoteSegmenter(FileContract):
    @pytest.fixture(params=[True, False], ids=["jobs", "requests"])
    def segmenter(self, server: Server, volumes: VolumeStore, request: pytest.FixtureRequest) -> Segmenter:
        return RemoteSegmenter(
            server.url, partial(estimate_elsewhere, volumes=volumes, resources=FixedResources()), as_jobs=request.param
        )

    def test_a_job_leaves_nothing_on_the_server(
        self, segmenter: Segmenter, case: str, outputs: Outputs, server: Server
    ) -> None:
        segmenter.segment([case], None, outputs, RunOptions(), RecordingProgress())
        with server.client() as http:
            assert http.get("/v1/jobs").json() == {"jobs": []}


class Counting(httpx.HTTPTransport):
    """A transport that counts the bytes of request bodies."""

    sent = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        type(self).sent += int(request.headers.get("content-length", 0))
        return super().handle_request(request)


def test_a_volume_travels_once_however_many_models_are_tried(server: Server, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (40, 40, 40), np.uint8)
    case = save(tmp_path / "scan.nii", values, np.eye(4))
    estimate = partial(estimate_elsewhere, volumes=NiftiStore(), resources=FixedResources())
    segmenter = RemoteSegmenter(server.url, estimate, transport=Counting)
    for offer in segmenter.offers():
        segmenter.estimate([str(case)], offer.card.reference, RunOptions(), RecordingProgress())
    assert Counting.sent == 0
    segmenter.segment([str(case)], "many", Outputs(str(tmp_path / "mask.nii.gz")), RunOptions(), RecordingProgress())
    size = case.stat().st_size
    assert size < Counting.sent < size + 4096


def test_an_estimate_from_here_is_the_servers_own(server: Server, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (40, 40, 40), np.uint8)
    case = save(tmp_path / "scan.nii", values, np.eye(4))
    segmenter = RemoteSegmenter(
        server.url, partial(estimate_elsewhere, volumes=NiftiStore(), resources=FixedResources())
    )
    here = segmenter.estimate([str(case)], "edges:1.0.0", RunOptions(), RecordingProgress())
    with server.client() as http, case.open("rb") as file:
        there = http.post("/v1/plan", files={"volume": file}, data={"model": "edges"}).json()
    assert (here.tiles, list(here.warnings)) == (there["tiles"], there["warnings"])
    assert here.peak_bytes == pytest.approx(there["peak_bytes"], rel=0.05)
    assert here.seconds == pytest.approx(there["seconds"], abs=2)
