"""An upload becomes a job's blob by being written once, and slow submissions do not hold up others."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from starlette.testclient import TestClient
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.application import Application
from voxport.domain.reading import Reading
from voxport.entrypoints.rest.app import create_app
from voxport.ports.volume_store import VolumeSource
from voxport.testing.job_queue import wait_until

from .conftest import named_model

GATED_EDGE = 31


class GatedStore(NiftiStore):
    """Opens volumes of ``GATED_EDGE`` voxels an edge only once ``gate`` is set; ``waiting`` counts those that wait."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.gate = threading.Event()
        self.waiting = 0

    def open(self, reference: str, reading: Reading | None = None) -> Any:
        source: VolumeSource = super().open(reference, reading)
        if source.grid.shape[0] == GATED_EDGE:
            self.waiting += 1
            assert self.gate.wait(60)
        return source


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Application:
    for name in ("data", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    named_model(tmp_path / "models", "edges")
    return Application.build(model="edges", models_dir=tmp_path / "models", scratch_dir=tmp_path / "scratch")


@contextmanager
def served(application: Application) -> Iterator[TestClient]:
    """A client of the application's service, whose models are loaded."""
    with TestClient(create_app(application)) as client:
        assert application.served_models.wait(60)  # until then a submission is answered with 503
        yield client


@pytest.fixture
def http(application: Application) -> Iterator[TestClient]:
    with served(application) as client:
        yield client


def volume(edge: int) -> bytes:
    values = np.random.default_rng(edge).random((edge, edge, edge), np.float32)
    return bytes(nib.Nifti1Image(values, np.diag([1.0, 1.0, 1.0, 1.0])).to_bytes())


def submit(http: TestClient, content: bytes) -> Any:
    return http.post("/v1/jobs", files={"volume": ("scan.nii", io.BytesIO(content))})


def written_bytes() -> int:
    """Bytes that this process has handed to the system so far, to files and all else."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def test_a_volume_is_written_once_on_its_way_from_the_wire_to_the_mask(
    application: Application, http: TestClient
) -> None:
    submit(http, volume(8))  # the first job also creates the database
    content = volume(96)
    before = written_bytes()
    job = submit(http, content)
    assert job.status_code == 202, job.text
    submitted = written_bytes()
    assert len(content) <= submitted - before < 1.1 * len(content)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(application.work_on_jobs, 1, stop)
        wait_until(lambda: http.get(f"/v1/jobs/{job.json()['id']}").json()["ended"] is not None, 60)
        stop.set()
        work.result(60)
    assert http.get(f"/v1/jobs/{job.json()['id']}").json()["state"] == "done"
    assert written_bytes() - submitted < 0.9 * len(content)


def test_two_slow_submissions_do_not_hold_up_a_third(application: Application, tmp_path: Path) -> None:
    store = GatedStore(tmp_path / "scratch")
    with (
        application.container.volumes.override(store),
        served(application) as http,
        ThreadPoolExecutor(3) as pool,
    ):
        slow = [pool.submit(submit, http, volume(GATED_EDGE)) for _ in range(2)]
        try:
            wait_until(lambda: store.waiting == 2 or any(upload.done() for upload in slow), 60)
            assert store.waiting == 2, [upload.result().text for upload in slow if upload.done()]
            assert pool.submit(submit, http, volume(8)).result(60).status_code == 202
            assert not any(upload.done() for upload in slow)
        finally:
            store.gate.set()
        assert [upload.result(60).status_code for upload in slow] == [202, 202]


@pytest.mark.parametrize("route", ["/segment", "/v1/jobs"])
def test_a_package_that_the_service_lacks_is_named_with_its_extra(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    files = {"volume": ("scan.tif", b"II*\0" + b"\0" * 100)}
    answers = [http.post(route, files=files)]
    answers.append(http.post(route, files={"volume": ("scan.nii", volume(8))}, data={"format": "ome.tif"}))
    for answer in answers:
        assert (answer.status_code, answer.json()["type"]) == (501, "urn:voxport:problem:not-installed"), answer.text
        assert answer.json()["do"] == "pip install 'voxport[microscopy]'"


def test_an_upload_that_never_becomes_a_job_leaves_nothing_behind(http: TestClient, tmp_path: Path) -> None:
    for content in (b"", b"no volume"):
        assert submit(http, content).status_code == 422
    blobs = tmp_path / "data" / "voxport" / "jobs" / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []
    assert list((blobs / ".parts").iterdir()) == []
