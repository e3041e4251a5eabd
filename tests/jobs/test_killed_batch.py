"""A batch is really killed, again and again; what was done stays as it is, and the rest is gone on with."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.domain.job import Job
from voxport.testing.job_queue import wait_until

from tests.cli.conftest import environment, make_model

CASES = ("a", "b", "folder/c", "folder/d")
PATIENCE = 120.0


class Batch:
    """The same command, as often as it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        for seed, case in enumerate(CASES):
            path = folder / "in" / f"{case}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(seed).integers(0, 256, (48, 48, 40), np.uint8)
            nib.save(nib.Nifti1Image(values, np.eye(4)), path)
        make_model(folder / "model.onnx", radius=2, overlap=0.5)

    def start(self, out: str = "out") -> subprocess.Popen[str]:
        env = {"VOXPORT_JOBS__KEEP_EVERY_SECONDS": "0", "VOXPORT_JOBS__LEASE_SECONDS": "2"}
        return subprocess.Popen(
            [sys.executable, "-m", "voxport", "batch", "in", "-o", out, "-m", "model.onnx", "--json"],
            cwd=self.folder,
            env=environment(self.folder) | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def finished(self) -> dict[str, tuple[int, int]]:
        """When each finished case's mask was written, and which file it is."""
        stats = {case: (self.out / f"{case}.nii.gz").stat() for case in CASES if self.reported(case)}
        return {case: (stat.st_mtime_ns, stat.st_ino) for case, stat in stats.items()}

    def reported(self, case: str) -> bool:
        return (self.out / f"{case}.report.json").exists()

    def jobs(self) -> tuple[Job, ...]:
        """Those in the batch's own queue."""
        with closing(DbosJobQueue(f"sqlite:///{self.out}/.voxport/jobs.sqlite", create=False)) as queue:
            try:
                return queue.list()
            except ConnectionError:  # not there yet, or not any more
                return ()


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def kill_when_more_is_done(batch: Batch) -> None:
    before = len(batch.finished())
    with batch.start() as process:
        try:
            wait_until(lambda: len(batch.finished()) > before or process.poll() is not None, PATIENCE)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL, process.stderr


def test_a_batch_that_is_killed_goes_on_and_does_not_redo_what_is_done(batch: Batch) -> None:
    with batch.start("undisturbed") as whole:
        said, errors = whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0, errors
    expected = {case: (batch.folder / "undisturbed" / f"{case}.nii.gz").read_bytes() for case in CASES}
    finished: dict[str, tuple[int, int]] = {}
    for _ in range(2):
        kill_when_more_is_done(batch)
        now = batch.finished()
        assert now.items() >= finished.items()
        finished = now
        # whatever has its final name is whole
        for path in batch.out.rglob("*.nii.gz"):
            if ".voxport" not in path.parts:
                assert path.read_bytes() == expected[path.relative_to(batch.out).as_posix().removesuffix(".nii.gz")]
    assert 2 <= len(finished) < len(CASES)
    with batch.start() as last:
        said, errors = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, errors
    told = json.loads(said)
    assert told["counts"] == {"done": len(CASES) - len(finished), "skipped": len(finished), "failed": 0}
    assert {case["case"] for case in told["cases"] if case["state"] == "skipped"} == set(finished)
    assert batch.finished().items() >= finished.items()
    assert {case: (batch.out / f"{case}.nii.gz").read_bytes() for case in CASES} == expected
    kinds = ("nii.gz", "report.json")
    assert {path.relative_to(batch.out).as_posix() for path in batch.out.rglob("*") if path.is_file()} == {
        "statistics.csv",
        *(f"{case}.{kind}" for case in CASES for kind in kinds),
    }
    with (batch.out / "statistics.csv").open(newline="") as table:
        assert [row["case"] for row in csv.DictReader(table)] == list(CASES)


def test_the_case_that_was_being_segmented_is_the_same_job_and_keeps_its_planes(batch: Batch) -> None:
    planes: list[Path] = []

    def half_done() -> bool:
        planes[:] = list(batch.out.glob(".voxport/blobs/cases/*/planes/*.npz"))
        return len(planes) > 1

    with batch.start() as process:
        try:
            wait_until(half_done, PATIENCE)
        finally:
            process.kill()
    running = [job for job in batch.jobs() if job.state == "running"]
    assert [job.attempts for job in running] == [1]
    resumed: list[Job] = []

    def taken_over() -> bool:
        resumed[:] = [job for job in batch.jobs() if job.id == running[0].id and job.attempts == 2 and job.tiles_done]
        return bool(resumed)

    with batch.start() as process:
        try:
            wait_until(taken_over, PATIENCE)
            assert resumed[0].tiles_done > 1
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, errors
