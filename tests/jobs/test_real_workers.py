"""``voxport worker`` twice on Postgres: one is killed, and every mask is an undisturbed run's to the last byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.blobs.fsspec import FsspecBlobs
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.application import Application
from voxport.domain.run import Outputs, RunOptions
from voxport.services.jobs.submit import JobPorts, submit_case
from voxport.testing.job_queue import wait_until
from voxport.testing.progress import RecordingProgress

from tests.cli.conftest import environment, make_model

from .processes import Postgres

PATIENCE_SECONDS = 180.0


class Site:
    """A folder with a model and twenty volumes, a database, and workers that are gone afterwards."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.blobs_url = f"file://{folder}/blobs"
        (folder / "models").mkdir()
        model = make_model(folder / "models" / "edges.onnx", radius=2)
        self.application = Application.build(models_dir=folder / "models", model=str(model))
        self.loaded = self.application.load_model(self.application.find_model(str(model)))
        self.reference = self.loaded.model.card.reference
        self.scans = [self._scan(number) for number in range(20)]
        self.workers: list[subprocess.Popen[bytes]] = []

    def _scan(self, number: int) -> Path:
        path = self.folder / f"scan-{number}.nii.gz"
        shape = (20, 16 + number, 14) if number > 1 else (48, 40, 32)  # the first two last, so that one can be killed
        values = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
        return path

    def right_mask(self, scan: Path) -> bytes:
        """Of an undisturbed run in this process."""
        mask = self.folder / "right.nii.gz"
        self.application.segment([str(scan)], self.loaded, Outputs(str(mask)), RunOptions(), RecordingProgress())
        return mask.read_bytes()

    def start(self) -> subprocess.Popen[bytes]:
        """One more worker."""
        env = environment(self.folder) | {
            "VOXPORT_JOBS__DATABASE": self.url,
            "VOXPORT_JOBS__BLOBS": self.blobs_url,
            "VOXPORT_JOBS__LEASE_SECONDS": "2",
            "VOXPORT_JOBS__KEEP_EVERY_SECONDS": "0.5",
        }
        command = [sys.executable, "-m", "voxport", "worker", "--models", "models", "--threads", "1"]
        with (self.folder / f"log-{len(self.workers)}").open("wb") as log:
            self.workers.append(subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log))
        return self.workers[-1]

    def log(self, worker: subprocess.Popen[bytes]) -> str:
        """What it said."""
        return (self.folder / f"log-{self.workers.index(worker)}").read_text(encoding="utf-8")


@pytest.fixture
def site(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in [name for name in os.environ if name.startswith("VOXPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    site = Site(tmp_path, postgres.new_database("real_workers"))
    yield site
    for worker in site.workers:
        worker.kill()
        worker.wait()


def test_of_two_workers_one_is_killed_and_all_twenty_masks_are_right(site: Site) -> None:
    blobs = FsspecBlobs(site.blobs_url)
    with closing(DbosJobQueue(site.url)) as queue:
        ports = JobPorts(queue, blobs)
        jobs = [
            submit_case([(scan.name, scan)], site.reference, RunOptions(), [], "ada", ports=ports)
            for scan in site.scans
        ]
        killed, other = site.start(), site.start()
        wait_until(lambda: sum(job.tiles_done > 0 for job in queue.list(states=["running"])) == 2, PATIENCE_SECONDS)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        wait_until(lambda: all(job.has_ended for job in queue.list()), PATIENCE_SECONDS)
        ended = [queue.get(job.id) for job in jobs]
        assert {job.state for job in ended} == {"done"}, site.log(other)
        assert Counter(job.attempts for job in ended) == {1: 19, 2: 1}
        assert queue.stats().ended["done"] == 20
        for job, scan in zip(ended, site.scans, strict=True):
            with blobs.open(job.results["mask"].blob) as stream:
                assert stream.read() == site.right_mask(scan)
            kept = {name.split("/")[2] for name in blobs.names(job.case.folder)}
            assert kept == {"inputs", f"results-{job.attempts}"}
        other.terminate()
        assert other.wait(30) == 0
        assert "Traceback" not in site.log(other)
