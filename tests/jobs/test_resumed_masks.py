"""A process that segments is killed in mid-job; the next one goes on, and the mask is an undisturbed run's."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import nibabel as nib
import numpy as np
from voxport.adapters.blobs.fsspec import FsspecBlobs
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.domain.run import Outputs, RunOptions
from voxport.services.jobs.submit import JobPorts, submit_case
from voxport.services.segmentation.segment import segment
from voxport.testing.job_queue import wait_until
from voxport.testing.progress import RecordingProgress

from tests.services.conftest import noise

from .processes import ROOT
from .segmenting_worker import PORTS, model


def test_a_job_whose_process_was_killed_ends_with_the_same_bytes_and_less_work(tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(noise((14, 12, 13)), np.diag([1.0, 2.0, 3.0, 1.0])), scan)
    url, blobs_url = f"sqlite:///{tmp_path}/jobs.sqlite", f"file://{tmp_path}/blobs"
    outputs = Outputs(str(tmp_path / "mask.nii.gz"), str(tmp_path / "probabilities.nii.gz"))
    whole = segment([str(scan)], model(), outputs, RunOptions(), RecordingProgress(), ports=PORTS)
    tiles = whole.prepared.plan.tile_count
    command = [sys.executable, "-m", "tests.jobs.segmenting_worker", url, blobs_url, str(tiles - 2)]
    with closing(DbosJobQueue(url)) as queue:
        blobs = FsspecBlobs(blobs_url)
        ports = JobPorts(queue, blobs)
        volumes = [("scan.nii.gz", scan)]
        reference = model().model.card.reference
        job = submit_case(volumes, reference, RunOptions(), ["probabilities"], "ada", ports=ports)
        assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -signal.SIGKILL
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as second:
            try:
                wait_until(lambda: queue.get(job.id).state == "done")
            finally:
                second.terminate()
            said, _ = second.communicate(timeout=30)
        done = queue.get(job.id)
        assert (done.attempts, done.tiles_done) == (2, tiles)
        for name, path in (("mask", outputs.mask), ("probabilities", outputs.probabilities)):
            assert path is not None
            with blobs.open(done.results[name].blob) as stream:
                assert stream.read() == Path(path).read_bytes()
    assert 0 < int(said.split()[-1]) < tiles
