"""Cases go through the queue as through one's own hands: the same results, however often they were begun."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.scratch.folders import ScratchFolders
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import BusyError, OutputError, UsageError
from voxport.domain.inference.patches import Tiling
from voxport.domain.job import Job
from voxport.domain.run import Outputs, RunOptions
from voxport.ports.job_queue import Attempt, QueueLimits, Results
from voxport.services.jobs.run import TABLE, JobSettings, options_of, run_job
from voxport.services.jobs.submit import JobPorts, case_folder, forget_job, submit_case
from voxport.services.jobs.worker import sweep
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.segment import SegmentPorts, segment
from voxport.testing.blobs import MemoryBlobs
from voxport.testing.job_queue import wait_until, working
from voxport.testing.job_queue_fake import MemoryJobQueue
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

from tests.services.conftest import brighter_than, load, make_card, noise

EVERYTHING = ("mask", "probabilities", "statistics", "preview", "report")
SETTINGS = JobSettings("1.0", keep_every_seconds=0.0)
OPTIONS = RunOptions(overlap=0.25, patch=(4, 4, 4), axis="y")


class Bench:
    """A queue, blobs, one volume and one model."""

    def __init__(self, folder: Path) -> None:
        self.queue, self.blobs = MemoryJobQueue(QueueLimits(backoff_seconds=0.01)), MemoryBlobs()
        self.ports = JobPorts(self.queue, self.blobs)
        self.segment_ports = SegmentPorts(NiftiStore(), LocalFiles(), PngPictures(), FixedResources())
        self.scan = folder / "scan.nii.gz"
        nib.save(nib.Nifti1Image(noise((14, 12, 13)), np.diag([1.0, 2.0, 3.0, 1.0])), self.scan)
        self.loaded = load(brighter_than(0.5), make_card(tiling=Tiling((6, 6, 6))), radius=1)

    def take(self, reference: str) -> LoadedModel:
        assert reference == self.loaded.model.card.reference
        return self.loaded

    def submit(self, *, key: str | None = None, owner: str = "ada") -> Job:
        reference = self.loaded.model.card.reference
        volumes = [("scan.nii.gz", self.scan)]
        return submit_case(volumes, reference, OPTIONS, EVERYTHING, owner, ports=self.ports, key=key)

    def handler(self, attempt: Attempt) -> Results:
        ports, folders = self.segment_ports, ScratchFolders(None, FileLocks())
        return run_job(attempt, take=self.take, ports=ports, blobs=self.blobs, settings=SETTINGS, folders=folders)

    def ended(self, job: Job) -> Job:
        wait_until(lambda: self.queue.get(job.id).has_ended)
        return self.queue.get(job.id)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Deadly:
    """An attempt whose worker dies after so many reports."""

    def __init__(self, attempt: Attempt, reports: int) -> None:
        self.job, self._attempt, self._left = attempt.job, attempt, reports

    def report(self, done: int, total: int) -> None:
        """Count down, then die."""
        self._left -= 1
        if self._left < 0:
            raise MemoryError
        self._attempt.report(done, total)


def direct(bench: Bench, folder: Path) -> dict[str, bytes]:
    """The same case without a queue."""
    folder.mkdir()
    files = {
        name: folder / f"{name}{suffix}"
        for name, suffix in (
            ("mask", ".nii.gz"),
            ("probabilities", ".nii.gz"),
            ("statistics", ".json"),
            ("preview", ".png"),
        )
    }
    outputs = Outputs(**{name: str(path) for name, path in files.items()})
    segment([str(bench.scan)], bench.loaded, outputs, OPTIONS, RecordingProgress(), ports=bench.segment_ports)
    return {name: path.read_bytes() for name, path in files.items()}


def test_a_jobs_results_are_the_commands_bytes(bench: Bench, tmp_path: Path) -> None:
    job = bench.submit()
    with working(bench.queue, bench.handler):
        done = bench.ended(job)
    assert done.state == "done"
    assert set(done.results) == {*EVERYTHING, TABLE}
    assert bench.blobs.contents[done.results[TABLE].blob].startswith(b"value,name,")
    expected = direct(bench, tmp_path / "direct")
    for name, content in expected.items():
        assert bench.blobs.contents[done.results[name].blob] == content
    for file in done.results.values():
        assert hashlib.sha256(bench.blobs.contents[file.blob]).hexdigest() == file.sha256
    report = json.loads(bench.blobs.contents[done.results["report"].blob])
    assert [file["name"] for file in report["inputs"]] == ["scan.nii.gz"]
    assert str(tmp_path) not in json.dumps(report)
    assert done.tiles_done == done.tiles_total == report["tiles"]["count"]
    assert bench.blobs.names(f"{job.case.folder}/planes") == ()


def test_attempts_that_die_leave_the_next_one_less_to_do_and_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    job = bench.submit()
    first_reports: list[int] = []

    def handler(attempt: Attempt) -> Results:
        seen: list[int] = []

        class Watching(Deadly):
            def report(self, done: int, total: int) -> None:
                if total:
                    seen.append(done)
                super().report(done, total)

        try:
            return bench.handler(Watching(attempt, 50 if attempt.job.attempts < 3 else 10**6))
        finally:
            first_reports.append(next(done for done in seen if done))

    with working(bench.queue, handler):
        done = bench.ended(job)
    assert (done.state, done.attempts) == ("done", 3)
    assert first_reports[0] == 1
    assert 1 < first_reports[1] < first_reports[2]
    expected = direct(bench, tmp_path / "direct")
    assert {name: bench.blobs.contents[done.results[name].blob] for name in expected} == expected


def test_a_cancelled_job_keeps_no_results(bench: Bench) -> None:
    job = bench.submit()

    def handler(attempt: Attempt) -> Results:
        if attempt.job.state == "running":
            bench.queue.cancel(job.id)
        return bench.handler(attempt)

    with working(bench.queue, handler):
        assert bench.ended(job).state == "cancelled"
    assert bench.blobs.names(f"{job.case.folder}/results-1") == ()


def test_a_volume_that_changed_in_the_store_fails_the_job(bench: Bench) -> None:
    job = bench.submit()
    bench.blobs.contents[job.case.inputs[0].blob] += b"x"
    with working(bench.queue, bench.handler):
        failed = bench.ended(job)
    assert failed.failure is not None
    assert (failed.state, failed.failure.kind) == ("failed", "input")
    assert "the bytes that were sent" in failed.failure.detail


def test_a_failure_names_files_as_they_were_sent_not_where_they_lie(bench: Bench) -> None:
    bench.scan.write_bytes(bench.scan.read_bytes()[:-20])
    job = bench.submit()
    with working(bench.queue, bench.handler):
        failed = bench.ended(job)
    assert failed.failure is not None
    assert failed.failure.kind == "input"
    assert failed.failure.detail.startswith("scan.nii.gz: expected")


def test_a_job_of_another_model_file_under_the_same_name_is_parked(bench: Bench) -> None:
    model = bench.loaded.model
    volumes = [("scan.nii.gz", bench.scan)]
    jobs = [
        submit_case(volumes, model.card.reference, OPTIONS, EVERYTHING, "ada", ports=bench.ports, model_sha256=sha256)
        for sha256 in ("c" * 64, model.sha256)
    ]
    with working(bench.queue, bench.handler):
        parked, done = map(bench.ended, jobs)
    assert parked.failure is not None
    assert parked.state == "parked"
    assert f"expected the file with sha256 {'c' * 64}, got one with {model.sha256}" in parked.failure.detail
    assert done.state == "done"


def test_a_job_that_states_its_memory_is_held_to_that_and_not_to_the_workers(bench: Bench) -> None:
    volumes, reference = [("scan.nii.gz", bench.scan)], bench.loaded.model.card.reference
    little, enough = (replace(OPTIONS, memory_bytes=memory) for memory in (1000, 10**9))
    jobs = [
        submit_case(volumes, reference, options, EVERYTHING, "ada", ports=bench.ports) for options in (little, enough)
    ]
    with working(bench.queue, bench.handler):
        failed, done = map(bench.ended, jobs)
    assert failed.failure is not None
    assert (failed.state, failed.failure.kind) == ("failed", "limit")
    assert done.state == "done"


def test_blobs_that_take_nothing_are_waited_out(bench: Bench) -> None:
    job = bench.submit()
    bench.blobs.full = True
    with working(bench.queue, bench.handler):
        wait_until(lambda: bench.queue.get(job.id).attempts > 1)
        bench.blobs.full = False
        assert bench.ended(job).state == "done"


def test_a_request_sent_twice_stores_its_volumes_once(bench: Bench) -> None:
    first, second = bench.submit(key="k"), bench.submit(key="k")
    assert first.id == second.id
    assert {name.rpartition("/inputs/")[0] for name in bench.blobs.names("cases")} == {first.case.folder}


def test_a_folder_of_the_callers_tells_a_new_job_from_one_that_the_key_made(bench: Bench) -> None:
    folders = [case_folder(), case_folder()]
    assert folders[0] != folders[1]
    volumes, reference = [("scan.nii.gz", bench.scan)], bench.loaded.model.card.reference
    jobs = [
        submit_case(volumes, reference, OPTIONS, ["mask"], "ada", ports=bench.ports, key="k", folder=folder)
        for folder in folders
    ]
    assert [job.case.folder for job in jobs] == [folders[0]] * 2


def test_files_whose_hashes_are_known_are_taken_over(bench: Bench) -> None:
    content = bench.scan.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    volumes, reference = [("scan.nii.gz", bench.scan)], bench.loaded.model.card.reference
    job = submit_case(volumes, reference, OPTIONS, ["mask"], "ada", ports=bench.ports, hashes=[sha256])
    assert not bench.scan.exists()
    (stored,) = job.case.inputs
    assert (stored.name, stored.sha256) == ("scan.nii.gz", sha256)
    assert bench.blobs.contents[stored.blob] == content


def test_a_refused_case_leaves_no_volumes(bench: Bench) -> None:
    bench.ports = JobPorts(MemoryJobQueue(QueueLimits(length=0)), bench.blobs)
    with pytest.raises(BusyError):
        bench.submit()
    assert bench.blobs.contents == {}


def test_forgetting_takes_all_that_is_stored_and_only_of_what_has_ended(bench: Bench) -> None:
    job = bench.submit()
    with pytest.raises(UsageError):
        forget_job(job.id, "ada", ports=bench.ports)
    assert bench.blobs.names(job.case.folder) != ()
    bench.queue.cancel(job.id)
    forget_job(job.id, "ada", ports=bench.ports)
    assert bench.blobs.contents == {}


def test_the_sweep_takes_what_is_old_and_what_belongs_to_no_job(bench: Bench) -> None:
    old, waiting = bench.submit(), bench.submit()
    ended = bench.queue.cancel(old.id).ended
    assert ended is not None
    bench.blobs.put("cases/0000000001-stray/inputs/0", io.BytesIO(b"x"))
    bench.blobs.put("elsewhere/x", io.BytesIO(b"x"))
    assert sweep(ended + 99, 100, ports=bench.ports) == 0
    assert bench.blobs.names(old.case.folder) != ()
    assert bench.blobs.names("cases/0000000001-stray") == ()
    assert sweep(ended + 101, 100, ports=bench.ports) == 1
    assert [job.id for job in bench.queue.list()] == [waiting.id]
    assert bench.blobs.names(old.case.folder) == ()
    assert bench.blobs.names(waiting.case.folder) != ()
    assert bench.blobs.exists("elsewhere/x")


def test_a_job_that_is_tried_again_while_it_is_swept_keeps_its_volumes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.submit()
    ended = bench.queue.cancel(job.id).ended
    assert ended is not None
    forget = bench.queue.forget

    def meanwhile(id: str, owner: str | None = None) -> None:
        bench.queue.retry(id)
        forget(id, owner)

    monkeypatch.setattr(bench.queue, "forget", meanwhile)
    assert sweep(ended + 101, 100, ports=bench.ports) == 0
    with working(bench.queue, bench.handler):
        assert bench.ended(job).state == "done"


def test_sweeps_at_the_same_time_take_each_job_once(bench: Bench) -> None:
    ends = [bench.queue.cancel(bench.submit().id).ended or 0.0 for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        swept = list(pool.map(lambda _: sweep(max(ends) + 101, 100, ports=bench.ports), range(4)))
    assert sum(swept) == 20
    assert bench.blobs.contents == {}


def test_what_cannot_be_deleted_stops_no_sweep_and_is_taken_by_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [bench.submit() for _ in range(3)]
    ends = [bench.queue.cancel(job.id).ended or 0.0 for job in jobs]
    delete = bench.blobs.delete_prefix

    def stubborn(prefix: str) -> None:
        if prefix == jobs[1].case.folder:
            raise OutputError.cannot_write(prefix, "read-only file system")
        delete(prefix)

    with monkeypatch.context() as patch:
        patch.setattr(bench.blobs, "delete_prefix", stubborn)
        with pytest.raises(OutputError, match="read-only"):
            sweep(max(ends) + 5000, 100, ports=bench.ports)
    assert {name.rpartition("/inputs/")[0] for name in bench.blobs.contents} == {jobs[1].case.folder}
    sweep(max(ends) + 5000, 100, ports=bench.ports)
    assert bench.blobs.contents == {}


def test_volumes_on_their_way_into_the_queue_are_no_strays_however_short_jobs_are_kept(bench: Bench) -> None:
    began = 1_800_000_000
    bench.blobs.put(f"cases/{began}-coming/inputs/0", io.BytesIO(b"x"))
    sweep(began + 600, 1, ports=bench.ports)
    assert bench.blobs.names(f"cases/{began}-coming") != ()
    sweep(began + 4000, 1, ports=bench.ports)
    assert bench.blobs.contents == {}


def test_options_survive_storage() -> None:
    options = RunOptions(0.25, (8, 8, 16), "halo", 10**9, 0.0, 0.4, "z")
    assert options_of(json.loads(json.dumps(asdict(options)))) == options
    assert options_of({}) == RunOptions()


def test_a_worker_that_stops_in_mid_job_stops_within_a_tile(bench: Bench) -> None:
    job = bench.submit()
    reports: list[int] = []
    stop = threading.Event()

    def handler(attempt: Attempt) -> Results:
        class Stopping(Deadly):
            def report(self, done: int, total: int) -> None:
                reports.append(done)
                if done == 5:
                    stop.set()
                super().report(done, total)

        return bench.handler(Stopping(attempt, 10**6))

    with closing(bench.queue):
        bench.queue.work(handler, 1, stop)
    assert reports[-1] == 5
    assert bench.queue.get(job.id).state == "queued"
