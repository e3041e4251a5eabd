"""The compose file's services as processes: its commands, variables, secrets and health checks, without an engine."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.client import Client

from tests.rest.exporting import Exported, export_fresh, noise
from tests.rest.serving import PATIENCE, Server, free_port, is_ready

from .composed import Host


@dataclass(frozen=True)
class Running:
    """The services that run, and the network that they serve."""

    host: Host
    api: Server
    worker: subprocess.Popen[bytes]
    exported: Exported

    @property
    def key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.host.secret('voxport_api_key')}"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("machine")
    exported = export_fresh(tmp_path_factory.mktemp("export"))
    host, values = Host(folder), {"VOXPORT_MODEL": "fresh"}
    assert host.prepare().returncode == 0
    shutil.copy(exported.model, host.deployment / "models" / "fresh.onnx")
    processes = dict[str, subprocess.Popen[bytes]]()
    port = free_port()
    try:
        for name, listens in (("api", port), ("worker", None)):
            host.mount(name)
            with (folder / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    host.command(name, listens),
                    env=host.environment(name, values),
                    cwd=folder / "data",
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        api = Server(processes["api"], f"http://127.0.0.1:{port}", folder / "api.log")
        api.wait_until(is_ready)
        yield Running(host, api, processes["worker"], exported)
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        assert {name: process.wait(PATIENCE) for name, process in processes.items()} == {"api": 0, "worker": 0}


def test_export_serve_predict_roundtrip(running: Running) -> None:
    """From a fresh checkpoint, by export, through the mounted folder, to labels: those of the checkpoint's network."""
    with running.api.client(headers=running.key) as http:
        assert http.get("/v1/models").json()["default"] == "fresh:1.0.0"
        answer = http.post("/predict", json={"volume": noise().tolist()})
    assert answer.status_code == 200, answer.text
    assert (np.array(answer.json()["segmentation"]) == running.exported.labels(noise())).mean() >= 0.9999


def test_nobody_is_served_without_the_key(running: Running) -> None:
    with running.api.client() as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/metrics").status_code == 401


def test_prometheus_is_given_numbers(running: Running) -> None:
    with running.api.client(headers=running.key) as http:
        assert "voxport_in_flight" in http.get("/metrics").text


def test_health_checks_tell_who_is_well(running: Running) -> None:
    port = int(running.api.url.rpartition(":")[2])
    assert running.host.is_healthy("api", port).returncode == 0
    done = running.host.is_healthy("worker")
    assert done.returncode == 0, done.stderr
    assert running.worker.poll() is None


def test_health_checks_tell_who_is_not(running: Running, tmp_path: Path) -> None:
    assert running.host.is_healthy("api", free_port()).returncode != 0
    without = Host(tmp_path)
    without.prepare()
    without.mount("worker")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").touch()
    assert without.is_healthy("worker").returncode != 0


def test_data_is_where_the_volumes_are(running: Running) -> None:
    data = running.host.folder / "data"
    assert (data / "jobs" / "jobs.sqlite").exists()
    written = {path.name for path in running.host.folder.iterdir()}
    assert written <= {"deployment", "data", "api", "worker", "api.log", "worker.log", "config"}
    assert {path.name for path in (running.host.folder / "api").iterdir()} == {"run", "scratch", "tmp"}


def test_a_write_into_the_root_file_system_would_fail(running: Running, tmp_path: Path) -> None:
    """So services that work so work with ``read_only``."""
    for place, may in ((tmp_path, False), (running.host.folder / "data", True)):
        done = subprocess.run(running.host.confined(["touch", str(place / "file")]), capture_output=True, check=False)
        assert (done.returncode == 0) is may
    (running.host.folder / "data" / "file").unlink()


def test_a_job_is_done_by_the_worker(running: Running, tmp_path: Path) -> None:
    """The service keeps it, the other process scores it, and both find its files in the volume that they share."""
    nib.save(nib.Nifti1Image(noise(), np.eye(4)), tmp_path / "scan.nii.gz")
    with Client(running.api.url, api_key=running.host.secret("voxport_api_key")) as client:
        job = client.jobs.wait(client.jobs.submit(tmp_path / "scan.nii.gz"))
        client.jobs.download(job, tmp_path / "mask.nii.gz")
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    assert (mask == running.exported.labels(noise())).mean() >= 0.9999
