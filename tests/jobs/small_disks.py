"""Jobs on a small disk of their own: ``python -m tests.jobs.small_disks SCENARIO FOLDER``.

FOLDER/disk is a file system of the scenario's size, mounted by who calls this; everything else is beside it.
"""

from __future__ import annotations

import errno
import gzip
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.blobs.fsspec import FsspecBlobs
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.scratch.folders import ScratchFolders
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import OutputError
from voxport.domain.job import Job, JobState
from voxport.domain.run import Outputs, RunOptions
from voxport.ports.job_queue import Attempt, Handler, QueueLimits, Results
from voxport.services.jobs.run import JobSettings, run_job
from voxport.services.jobs.submit import JobPorts, submit_case
from voxport.services.segmentation.segment import SegmentPorts, segment
from voxport.testing.job_queue import Gate, wait_until, working
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

from tests.services.conftest import noise

from .segmenting_worker import model

_BALLAST_BYTES = 4096


@dataclass
class Disk:
    """The small disk, which can be made full, read-only and well again."""

    path: Path

    def fill(self, leave: int = 0) -> None:
        """Leave no more than so many bytes."""
        with (self.path / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(_BALLAST_BYTES))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            ballast.truncate(ballast.tell() - leave)

    def free(self) -> None:
        """Take away what it was filled with."""
        (self.path / "ballast").unlink()

    def remount(self, mode: str) -> None:
        """Make it ``ro`` or ``rw``."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)


class Bench:
    """A queue, blobs and a scratch folder, one of them perhaps on the disk; and a volume with its right mask."""

    def __init__(self, folder: Path, *, database: str = ".", blobs: str = ".", scratch: str = ".") -> None:
        self.folder, self.disk = folder, Disk(folder / "disk")
        self.queue = DbosJobQueue(
            f"sqlite:///{folder / database}/jobs.sqlite", QueueLimits(lease_seconds=2.0, backoff_seconds=0.1)
        )
        self.blobs = FsspecBlobs(f"file://{folder / blobs}/blobs")
        self.ports = JobPorts(self.queue, self.blobs)
        self.segment_ports = SegmentPorts(NiftiStore(folder / scratch), LocalFiles(), PngPictures(), FixedResources())
        self.settings = JobSettings("1.0", keep_every_seconds=0.0)
        self.work_folders = ScratchFolders(folder / scratch, FileLocks())
        self.loaded = model()
        self.scan = self.volume("scan.nii.gz", noise((14, 12, 13)))

    def volume(self, name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Path:
        """A volume beside the disk."""
        path = self.folder / name
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
        return path

    def submit(self, scan: Path | None = None, **options: Any) -> Job:
        """One more job."""
        path, reference = scan or self.scan, self.loaded.model.card.reference
        return submit_case([(path.name, path)], reference, RunOptions(**options), [], "ada", ports=self.ports)

    def run(self, attempt: Attempt) -> Results:
        """The handler."""
        return run_job(
            attempt,
            take=lambda _: self.loaded,
            ports=self.segment_ports,
            blobs=self.blobs,
            settings=self.settings,
            folders=self.work_folders,
        )

    @contextmanager
    def working(self, handler: Handler | None = None) -> Iterator[None]:
        """With a worker."""
        with closing(self.queue), working(self.queue, handler or self.run):
            yield

    def wait_for(self, job: Job, state: JobState) -> Job:
        """The job, once it is in this state."""
        wait_until(lambda: self.queue.get(job.id).state == state)
        return self.queue.get(job.id)

    def wait_for_failure(self, job: Job, kind: str, words: str) -> None:
        """Return once it waits to be tried again for this reason."""
        wait_until(lambda: self.queue.get(job.id).failure is not None)
        waiting = self.queue.get(job.id)
        assert waiting.failure is not None
        assert (waiting.failure.kind, waiting.failed_attempts) == (kind, 0), waiting.failure
        assert words in waiting.failure.detail.lower(), waiting.failure
        assert waiting.state in ("queued", "running")

    def check_mask(self, job: Job) -> None:
        """Wait for the job's end; its mask is the right one, to the last byte."""
        done = self.wait_for(job, "done")
        outputs = Outputs(str(self.folder / "right.nii.gz"))
        ports = SegmentPorts(NiftiStore(self.folder), LocalFiles(), PngPictures(), FixedResources())
        segment([str(self.scan)], self.loaded, outputs, RunOptions(), RecordingProgress(), ports=ports)
        with self.blobs.open(done.results["mask"].blob) as stream:
            assert stream.read() == (self.folder / "right.nii.gz").read_bytes()

    def folders(self) -> set[str]:
        """Folders of cases in the blob store."""
        return {name.rpartition("/inputs")[0] for name in self.blobs.names("cases") if "/inputs" in name}


def blobs_are_full(folder: Path) -> None:
    """Nothing more fits beside the jobs' volumes, and then it does."""
    bench = Bench(folder, blobs="disk")
    jobs = [bench.submit() for _ in range(3)]
    bench.disk.fill()
    _blobs_take_nothing(bench, jobs, "no space left", bench.disk.free)


def blobs_are_read_only(folder: Path) -> None:
    """The jobs' volumes can be read, and nothing can be written; and then it can."""
    bench = Bench(folder, blobs="disk")
    jobs = [bench.submit() for _ in range(3)]
    bench.disk.remount("ro")
    _blobs_take_nothing(bench, jobs, "read-only", lambda: bench.disk.remount("rw"))


def _blobs_take_nothing(bench: Bench, jobs: list[Job], words: str, mend: Callable[[], None]) -> None:
    with bench.working():
        for job in jobs:
            bench.wait_for_failure(job, "output", words)
        with pytest.raises(OutputError, match=words.replace(" ", ".")):
            bench.submit()
        assert bench.folders() == {job.case.folder for job in jobs}
        assert len(bench.queue.list()) == len(jobs)
        mend()
        for job in jobs:
            bench.check_mask(job)
        assert list((bench.folder / "disk" / "blobs" / ".parts").iterdir()) == []
        bench.check_mask(bench.submit())


def scratch_is_full(folder: Path) -> None:
    """A volume finds no room to be fetched, or to be inflated, and then it does; one that never fits fails."""
    bench = Bench(folder, scratch="disk")
    flat = bench.volume("flat.nii.gz", np.zeros((64, 64, 64), np.uint8))
    too_large = bench.volume("large.nii.gz", np.zeros((112, 112, 112), np.uint8))
    assert len(gzip.decompress(too_large.read_bytes())) > SCENARIOS[scratch_is_full]
    bench.disk.fill()
    with bench.working():
        job = bench.submit()
        bench.wait_for_failure(job, "output", "no space left")
        bench.disk.free()
        bench.check_mask(job)
        bench.disk.fill(leave=100_000)
        job = bench.submit(flat, patch=(64, 64, 64))
        bench.wait_for_failure(job, "limit", "room for 262496 bytes")
        bench.disk.free()
        bench.wait_for(job, "done")
        failed = bench.wait_for(bench.submit(too_large), "failed")
        assert failed.failure is not None
        assert failed.failure.kind == "limit"
    assert list((folder / "disk").iterdir()) == []


def database_is_full(folder: Path) -> None:
    """The disk of the SQLite file is full while a job runs to its end, and then it is not."""
    (folder / "disk" / "ballast").touch()
    bench, gate = Bench(folder, database="disk"), Gate()

    def submit_until_refused() -> NoReturn:
        while True:  # there may be room within the file
            bench.submit()

    def handler(attempt: Attempt) -> Results:
        gate(attempt)
        return bench.run(attempt)

    with bench.working(handler):
        running, waiting = bench.submit(), bench.submit()
        bench.wait_for(running, "running")
        bench.disk.fill()
        with pytest.raises(ConnectionError, match="the job database: database or disk is full"):
            submit_until_refused()
        accepted = bench.queue.list()
        assert bench.folders() == {job.case.folder for job in accepted}
        assert {running.id, waiting.id} <= {job.id for job in accepted}
        gate.opened.set()
        wait_until(lambda: not gate.running)
        assert bench.queue.get(running.id).state == "running"
        bench.disk.free()
        for job in accepted:
            bench.check_mask(job)
        assert {bench.queue.get(job.id).attempts for job in accepted} == {1}
    with closing(sqlite3.connect(folder / "disk" / "jobs.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def database_cannot_be_made(folder: Path) -> None:
    """A new database finds a full disk, and a read-only one, and is made when it can be."""
    bench = Bench(folder, database="disk/folder")
    bench.disk.fill()
    with closing(bench.queue):
        with pytest.raises(ConnectionError, match="the job database: database or disk is full"):
            bench.submit()
        assert bench.folders() == set()
        bench.disk.free()
        bench.disk.remount("ro")
        with pytest.raises(ConnectionError, match=r"the job database: .*(read-only|readonly)"):
            bench.submit()
        bench.disk.remount("rw")
        assert bench.submit().position == 0


# and the bytes of the disk
SCENARIOS: dict[Callable[[Path], None], int] = {
    blobs_are_full: 400_000,
    blobs_are_read_only: 400_000,
    scratch_is_full: 1_000_000,
    database_is_full: 4_000_000,
    database_cannot_be_made: 4_000_000,
}


if __name__ == "__main__":
    {scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[1]](Path(sys.argv[2]))
