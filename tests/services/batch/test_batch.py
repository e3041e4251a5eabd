"""A cohort goes through a queue: what is done stays, what changed is done again, and nothing stops the others."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.scratch.folders import ScratchFolders
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.routed import RoutedStore
from voxport.domain.cases import CaseFiles, CasePattern
from voxport.domain.errors import BusyError, InputError, OutputError, UsageError, VoxportError
from voxport.domain.inference.patches import Tiling
from voxport.domain.job import Job, JobCase
from voxport.domain.run import Outputs, RunOptions
from voxport.ports.job_queue import Attempt, JobQueue, QueueLimits, QueueStats, Results
from voxport.services.batch.cohort import OWNER, CaseResult, run_batch
from voxport.services.batch.discovery import find_cases
from voxport.services.batch.folder import BatchFolder, held
from voxport.services.batch.layouts import Layout
from voxport.services.batch.record import BatchWork
from voxport.services.batch.watch import Watch
from voxport.services.jobs.run import JobSettings, run_job
from voxport.services.jobs.submit import JobPorts
from voxport.services.segmentation.segment import SegmentPorts, segment
from voxport.testing.blobs import MemoryBlobs
from voxport.testing.job_queue_fake import MemoryJobQueue
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

from tests.adapters.test_foreign_files import FOREIGN
from tests.services.conftest import brighter_than, load, make_card, noise

SETTINGS = JobSettings("1.0", keep_every_seconds=0.0)
PORTS = SegmentPorts(NiftiStore(), LocalFiles(), PngPictures(), FixedResources())
LOCKS = FileLocks()
Handling = Callable[[Attempt], Results]


def zip_of(folder: Path, file: Any) -> None:
    """Write all files of a folder as a zip."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())


class Listener:
    """Remembers what it heard, and then does what it is told to."""

    def __init__(self) -> None:
        self.moves: list[float] = []
        self.warnings: list[str] = []
        self.results: list[tuple[str, str]] = []
        self.after_move: Callable[[], object] = lambda: None
        self.after_warning: Callable[[], object] = lambda: None

    def moved(self, cases: float, total: int) -> None:
        assert cases <= total
        self.moves.append(cases)
        self.after_move()

    def ended(self, result: CaseResult) -> None:
        self.results.append((result.case, result.state))

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.after_warning()


class Bench:
    """A folder of volumes, a folder for results, a queue that outlives a batch, and a model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.volumes, self.out = folder, folder / "in", folder / "out"
        self.queue: JobQueue = MemoryJobQueue(QueueLimits(backoff_seconds=0.01))
        self.blobs = MemoryBlobs()
        self.loaded = load(brighter_than(0.5), make_card(tiling=Tiling((6, 6, 6))), radius=1)
        self.work = BatchWork(self.loaded.model, RunOptions(), ("mask",), command={"-m": "model.onnx"})
        self.listener = Listener()
        self.ran: list[str] = []
        self.fails = False
        self.pattern: CasePattern | None = None
        self.layout = Layout()

    def put(self, name: str, seed: int = 0, shape: Sequence[int] = (14, 12, 13)) -> Path:
        path = self.volumes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(noise(shape, seed), np.diag([1.0, 2.0, 3.0, 1.0])), path)
        return path

    def handler(self, attempt: Attempt) -> Results:
        self.ran.append(attempt.job.id)
        if self.fails:
            raise InputError("x", expected="x", got="y", do="z")
        return run_job(
            attempt,
            take=lambda _: self.loaded,
            ports=PORTS,
            blobs=self.blobs,
            settings=SETTINGS,
            folders=ScratchFolders(None, FileLocks()),
        )

    def ports(self) -> JobPorts:
        return JobPorts(self.queue, self.blobs)

    @property
    def results(self) -> BatchFolder:
        return BatchFolder(self.out, self.layout)

    def run(
        self,
        handler: Handling | None = None,
        *,
        at_once: int = 1,
        shared: bool = False,
        open_ports: Callable[[], JobPorts] | None = None,
        settle_seconds: float | None = None,
        again: Sequence[str] = (),
    ) -> dict[str, CaseResult]:
        """Run the batch; what became of each case.

        With ``settle_seconds`` it watches the folder; the cases ``again``, and no others, are done again.
        """

        def find() -> tuple[CaseFiles, ...]:
            return find_cases(self.volumes, self.results, 1, self.pattern, self.work.outputs, PORTS.volumes)

        watch = None if settle_seconds is None else Watch(find, self.volumes, settle_seconds)
        cases = () if watch else find()
        cases = tuple(case for case in cases if not again or case.name in again)

        def worker(stop: threading.Event) -> None:
            self.queue.work(handler or self.handler, at_once, stop)

        ended = run_batch(
            cases,
            self.volumes,
            self.results,
            self.work,
            self.listener,
            open_ports=open_ports or self.ports,
            locks=LOCKS,
            pack=zip_of,
            worker=None if shared else worker,
            at_once=at_once,
            watch=watch,
            redo=bool(again),
        )
        return {result.case: result for result in ended}

    def states(self, **options: Any) -> dict[str, str]:
        return {name: case.state for name, case in self.run(**options).items()}

    def report(self, case: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.out / f"{case}.report.json").read_text(encoding="utf-8"))
        return data

    def files(self) -> set[str]:
        return {path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file()}

    def table(self) -> list[dict[str, str]]:
        with (self.out / "statistics.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in ("_GLANCE_SECONDS", "_SHARED_GLANCE_SECONDS"):
        monkeypatch.setattr(f"voxport.services.batch.cohort.{name}", 0.02)
    bench = Bench(tmp_path)
    bench.put("a.nii.gz", 1)
    bench.put("sub/b.nii", 2)
    return bench


class Wrapped:
    """A queue with something changed."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


def no_job(_: Attempt) -> Results:
    raise AssertionError("no job was to run")


def until_stopped(attempt: Attempt) -> NoReturn:
    """Report one tile until that is an error, as the run is to stop."""
    while True:
        attempt.report(1, 4)
        threading.Event().wait(0.01)


def interrupt() -> NoReturn:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


# Results


def test_every_case_has_the_commands_own_mask_and_a_report_and_a_row_in_the_table(bench: Bench) -> None:
    bench.work = replace(bench.work, outputs=("mask", "probabilities", "preview"))
    assert bench.states() == {"a": "done", "sub/b": "done"}
    kinds = ("nii.gz", "probabilities.nii.gz", "preview.png", "report.json")
    assert bench.files() == {*(f"{case}.{kind}" for case in ("a", "sub/b") for kind in kinds), "statistics.csv"}
    for case, file in (("a", "a.nii.gz"), ("sub/b", "sub/b.nii")):
        own = Outputs(*(str(bench.folder / f"own.{kind}") for kind in ("nii.gz", "p.nii.gz", "csv", "png")))
        inputs = [str(bench.volumes / file)]
        segment(inputs, bench.loaded, own, RunOptions(), RecordingProgress(), ports=PORTS)
        assert own.probabilities
        assert own.statistics
        assert own.preview
        for kind, path in zip(kinds, (own.mask, own.probabilities, own.preview), strict=False):
            assert (bench.out / f"{case}.{kind}").read_bytes() == Path(path).read_bytes()
        with Path(own.statistics).open(encoding="utf-8", newline="") as table:
            rows = [{"case": case, **row} for row in csv.DictReader(table)]
        assert [row for row in bench.table() if row["case"] == case] == rows
    assert next(iter(bench.table()[0])) == "case"


def test_a_report_names_files_as_they_lie_and_the_command_that_makes_the_mask_again(bench: Bench) -> None:
    bench.run()
    report = bench.report("sub/b")
    assert [file["name"] for file in report["inputs"]] == ["sub/b.nii"]
    assert [file["name"] for file in report["outputs"]] == ["sub/b.nii.gz"]
    begin = f"voxport segment {bench.volumes}/sub/b.nii -m model.onnx -o {bench.out}/sub/b.nii.gz --runtime fake"
    assert report["command"].startswith(begin)
    assert report["statistics"]["labels"][0]["voxels"] > 0


def test_nothing_else_is_left_and_no_job(bench: Bench) -> None:
    bench.run()
    assert not (bench.out / ".voxport").exists()
    assert bench.queue.list() == ()
    assert bench.blobs.contents == {}


def test_the_bar_moves_by_tiles_up_to_the_number_of_cases(bench: Bench) -> None:
    def handler(attempt: Attempt) -> Results:
        attempt.report(1, 4)
        before = len(bench.listener.moves)
        while len(bench.listener.moves) < before + 3:
            threading.Event().wait(0.01)
        return bench.handler(attempt)

    bench.run(handler)
    assert {0.25, 1.25, 2.0} <= set(bench.listener.moves)
    assert bench.listener.moves[-1] == 2.0


def test_no_more_cases_are_copied_than_the_workers_need_soon(bench: Bench) -> None:
    for number in range(8):
        bench.put(f"more-{number}.nii", number, (6, 6, 6))
    most = 0

    def handler(attempt: Attempt) -> Results:
        nonlocal most
        most = max(most, len({name.split("/")[1] for name in bench.blobs.names("cases")}))
        return bench.handler(attempt)

    assert set(bench.states(handler=handler, at_once=2).values()) == {"done"}
    assert most == 4


# What is done


def test_what_is_done_and_unchanged_is_left_alone(bench: Bench) -> None:
    bench.run()
    before = {name: (bench.out / name).stat() for name in bench.files() if name != "statistics.csv"}
    table = bench.table()
    assert bench.states(handler=no_job) == {"a": "skipped", "sub/b": "skipped"}
    for name, stat in before.items():
        after = (bench.out / name).stat()
        assert (after.st_mtime_ns, after.st_ino) == (stat.st_mtime_ns, stat.st_ino)
    assert bench.table() == table


def test_cases_are_done_again_alone_and_the_others_keep_their_rows(bench: Bench) -> None:
    bench.run()
    table, ran = bench.table(), len(bench.ran)
    before = {name: (bench.out / f"{name}.nii.gz").stat().st_mtime_ns for name in ("a", "sub/b")}
    assert bench.states(again=["sub/b"]) == {"sub/b": "done"}
    after = {name: (bench.out / f"{name}.nii.gz").stat().st_mtime_ns for name in ("a", "sub/b")}
    assert (after["a"], len(bench.ran)) == (before["a"], ran + 1)
    assert after["sub/b"] > before["sub/b"]
    assert bench.table() == table
    assert {bench.report(name)["case"] for name in ("a", "sub/b")} == {"a", "sub/b"}
    assert bench.states(handler=no_job) == {"a": "skipped", "sub/b": "skipped"}


def other_bytes(bench: Bench) -> None:
    bench.put("a.nii.gz", 7)


def other_name_of_the_same(bench: Bench) -> None:
    nib.save(nib.load(bench.volumes / "a.nii.gz"), bench.volumes / "a.nii")
    (bench.volumes / "a.nii.gz").unlink()


def no_mask(bench: Bench) -> None:
    (bench.out / "a.nii.gz").unlink()


def touched_mask(bench: Bench) -> None:
    with (bench.out / "a.nii.gz").open("ab") as mask:
        mask.write(b"x")


def no_preview(bench: Bench) -> None:
    (bench.out / "a.preview.png").unlink()


def no_report(bench: Bench) -> None:
    (bench.out / "a.report.json").unlink()


def broken_report(bench: Bench) -> None:
    (bench.out / "a.report.json").write_text("[", encoding="utf-8")


def list_for_a_report(bench: Bench) -> None:
    (bench.out / "a.report.json").write_text("[]", encoding="utf-8")


def report_without_statistics(bench: Bench) -> None:
    report = bench.report("a")
    del report["statistics"]
    (bench.out / "a.report.json").write_text(json.dumps(report), encoding="utf-8")


def report_of_segment(bench: Bench) -> None:
    report = bench.report("a")
    del report["batch"]
    (bench.out / "a.report.json").write_text(json.dumps(report), encoding="utf-8")


def list_for_the_options(bench: Bench) -> None:
    report = bench.report("a")
    report["batch"]["options"] = []
    (bench.out / "a.report.json").write_text(json.dumps(report), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        other_bytes,
        other_name_of_the_same,
        no_mask,
        touched_mask,
        no_preview,
        no_report,
        broken_report,
        list_for_a_report,
        report_without_statistics,
        report_of_segment,
        list_for_the_options,
    ],
    ids=lambda change: change.__name__,
)
def test_a_case_that_changed_is_done_again_and_no_other(bench: Bench, change: Callable[[Bench], None]) -> None:
    bench.work = replace(bench.work, outputs=("mask", "preview"))
    bench.run()
    change(bench)
    assert bench.states() == {"a": "done", "sub/b": "skipped"}
    assert bench.states(handler=no_job) == {"a": "skipped", "sub/b": "skipped"}


def other_model(work: BatchWork) -> BatchWork:
    return replace(work, model=replace(work.model, sha256="c" * 64))


def other_card(work: BatchWork) -> BatchWork:
    return replace(work, model=replace(work.model, card=replace(work.model.card, description="Another.")))


def other_option(work: BatchWork) -> BatchWork:
    return replace(work, options=RunOptions(patch=(4, 4, 4)))


def other_outputs(work: BatchWork) -> BatchWork:
    return replace(work, outputs=("mask", "preview"))


def other_runtime(work: BatchWork) -> BatchWork:
    return replace(work, runtime="fake")


def other_precision(work: BatchWork) -> BatchWork:
    return replace(work, precision="fp32")


@pytest.mark.parametrize(
    "change",
    [other_model, other_card, other_option, other_outputs, other_runtime, other_precision],
    ids=lambda change: change.__name__,
)
def test_other_work_is_done_again(bench: Bench, change: Callable[[BatchWork], BatchWork]) -> None:
    bench.run()
    bench.work = change(bench.work)
    bench.loaded = replace(bench.loaded, model=bench.work.model)
    assert bench.states() == {"a": "done", "sub/b": "done"}
    assert bench.states(handler=no_job) == {"a": "skipped", "sub/b": "skipped"}


def test_what_a_command_calls_the_model_does_not_matter(bench: Bench) -> None:
    bench.run()
    bench.work = replace(bench.work, command={"-m": "elsewhere/model.onnx"})
    assert bench.states(handler=no_job) == {"a": "skipped", "sub/b": "skipped"}


def test_a_case_that_was_made_with_more_than_is_wanted_is_done(bench: Bench) -> None:
    bench.work = replace(bench.work, outputs=("mask", "probabilities", "preview"))
    bench.run()
    before = bench.files()
    bench.work = replace(bench.work, outputs=("mask", "preview"))
    assert bench.states(handler=no_job) == {"a": "skipped", "sub/b": "skipped"}
    assert bench.files() == before


def test_results_that_are_not_wanted_go_when_the_case_is_done_again(bench: Bench) -> None:
    bench.work = replace(bench.work, outputs=("mask", "probabilities", "preview"))
    bench.run()
    bench.work = replace(bench.work, outputs=("mask",), options=replace(bench.work.options, overlap=0.3))
    bench.run()
    assert bench.files() == {"a.nii.gz", "a.report.json", "sub/b.nii.gz", "sub/b.report.json", "statistics.csv"}


# Cases that fail


def test_a_failed_case_stops_no_other_and_is_tried_again_by_the_next_run(bench: Bench) -> None:
    bad = bench.put("bad.nii")
    bad.write_bytes(b"no volume")
    (bench.volumes / "sub" / "b.nii.gz").write_bytes(b"")
    ended = bench.run()
    assert {name: case.state for name, case in ended.items()} == {"a": "done", "bad": "failed", "sub/b": "failed"}
    assert "bad.nii" in str(ended["bad"].reason)
    assert "one case of this name" in str(ended["sub/b"].reason)
    assert {row["case"] for row in bench.table()} == {"a"}
    assert not (bench.out / ".voxport").exists()
    assert bench.queue.list() == ()
    bench.put("bad.nii")
    (bench.volumes / "sub" / "b.nii.gz").unlink()
    assert bench.states() == {"a": "skipped", "bad": "done", "sub/b": "done"}


def test_a_foreign_file_fails_its_case_by_what_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PORTS", replace(PORTS, volumes=RoutedStore(NiftiStore())))
    for number, (content, _, _) in enumerate(FOREIGN):
        (bench.volumes / f"foreign-{number}.nii").write_bytes(content)
    ended = bench.run()
    assert {ended[name].state for name in ("a", "sub/b")} == {"done"}
    for number, (_, what, helps) in enumerate(FOREIGN):
        reason = str(ended[f"foreign-{number}"].reason)
        assert reason.startswith(
            f"foreign-{number}.nii: expected a volume in a format that is read, such as NIfTI, got "
        ), reason
        assert what in reason
        assert helps in reason


def test_a_file_that_cannot_be_read_fails_its_case(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable = str(bench.volumes / "a.nii.gz")
    opened = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if str(path) == unreadable:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    ended = bench.run()
    assert "permission denied" in str(ended["a"].reason)
    assert ended["sub/b"].state == "done"


def test_a_job_that_was_cancelled_or_deleted_is_a_failed_case(bench: Bench) -> None:
    def handler(attempt: Attempt) -> Results:
        if attempt.job.case.inputs[0].name == "a.nii.gz":
            bench.queue.cancel(attempt.job.id)
            return bench.handler(attempt)
        bench.queue.cancel(attempt.job.id)
        raise VoxportError("x", expected="x", got="y", do="z")

    class Forgetful(Wrapped):
        def get(self, id: str, owner: str | None = None) -> Job:
            job = self._queue.get(id, owner)
            if job.has_ended and job.case.inputs[0].name == "b.nii":
                self._queue.forget(id)
            return self._queue.get(id, owner)

    bench.queue = Forgetful(bench.queue)
    ended = bench.run(handler)
    assert (ended["a"].state, ended["a"].reason) == ("failed", "its job was cancelled")
    assert ended["sub/b"].state == "failed"
    assert "list your jobs" in str(ended["sub/b"].reason)


def test_results_that_cannot_be_written_are_kept_for_the_next_run(bench: Bench) -> None:
    (bench.out / "a.nii.gz").mkdir(parents=True)
    ended = bench.run()
    assert {name: case.state for name, case in ended.items()} == {"a": "failed", "sub/b": "done"}
    assert "a.nii.gz" in str(ended["a"].reason)
    assert len(bench.queue.list()) == 1
    (bench.out / "a.nii.gz").rmdir()
    assert bench.states(handler=no_job) == {"a": "done", "sub/b": "skipped"}
    assert bench.queue.list() == ()
    assert not (bench.out / ".voxport").exists()


def test_a_report_that_is_none_fails_the_case(bench: Bench) -> None:
    def handler(attempt: Attempt) -> Results:
        results = bench.handler(attempt)
        report = json.loads(bench.blobs.contents[results["report"].blob])
        bench.blobs.contents[results["report"].blob] = json.dumps(report | {"statistics": None}).encode()
        return results

    ended = bench.run(handler)
    assert "a report of voxport" in str(ended["a"].reason)


# Runs that end early


def test_an_interrupted_batch_goes_on_from_its_last_planes(bench: Bench) -> None:
    bench.work = replace(bench.work, options=RunOptions(overlap=0.25, patch=(4, 4, 4), axis="x"))
    reported: list[tuple[str, int]] = []

    def interrupted(attempt: Attempt) -> Results:
        class Watching:
            job = attempt.job

            def report(self, done: int, total: int) -> None:
                attempt.report(done, total)
                reported.append((attempt.job.id, done))
                if done == 50:
                    bench.listener.after_move = interrupt
                    until_stopped(attempt)

        return bench.handler(Watching())

    with pytest.raises(KeyboardInterrupt):
        bench.run(interrupted)
    first = reported[0][0]
    assert (bench.out / ".voxport").exists()
    assert {job.state for job in bench.queue.list()} == {"queued"}
    bench.listener, reported[:] = Listener(), []

    def watching(attempt: Attempt) -> Results:
        class Watching:
            job = attempt.job

            def report(self, done: int, total: int) -> None:
                attempt.report(done, total)
                reported.append((attempt.job.id, done))

        return bench.handler(Watching())

    assert bench.states(handler=watching) == {"a": "done", "sub/b": "done"}
    assert bench.ran.count(first) == 2
    assert next(done for id, done in reported if id == first and done) > 1


def test_jobs_of_other_work_or_of_volumes_that_changed_are_not_gone_on_with(bench: Bench) -> None:
    def never(_: Attempt) -> Results:
        raise OSError("full")

    bench.listener.after_warning = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.run(never)
    bench.listener = Listener()
    old = {job.case.inputs[0].name: job.id for job in bench.queue.list()}
    bench.put("a.nii.gz", 9)
    shutil.rmtree(bench.volumes / "sub")
    assert bench.states() == {"a": "done"}
    assert not set(old.values()) & set(bench.ran)
    assert {bench.queue.get(id).state for id in old.values()} == {"cancelled"}
    assert not (bench.out / ".voxport").exists()


def test_a_run_of_other_work_drops_what_the_last_one_kept(bench: Bench) -> None:
    folder = bench.results
    with held(folder, LOCKS):
        token = folder.token("work")
        (folder.state / "blobs").mkdir()
        (folder.state / "jobs.sqlite").touch()
        assert folder.token("work") == token
        assert (folder.state / "jobs.sqlite").exists()
        assert folder.token("other work") != token
        assert {path.name for path in folder.state.iterdir()} == {"lock", "run.json", "landing"}


def test_a_table_that_is_written_early_keeps_the_rows_of_cases_that_were_not_reached(bench: Bench) -> None:
    bench.run()
    table = bench.table()
    bench.put("a.nii.gz", 9)

    bench.listener.after_move = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.run(until_stopped)
    assert bench.table() == table


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2,3\n", b'case,"\n', b"case\na,1\n"])
def test_a_table_that_is_none_is_replaced(bench: Bench, content: bytes) -> None:
    bench.out.mkdir()
    (bench.out / "statistics.csv").write_bytes(content)
    bench.run()
    assert {row["case"] for row in bench.table()} == {"a", "sub/b"}


def test_what_the_worker_dies_of_ends_the_batch(bench: Bench) -> None:
    class Dying(Wrapped):
        def work(self, *_: object) -> None:
            raise RuntimeError("out of luck")

    bench.queue = Dying(bench.queue)
    with pytest.raises(RuntimeError, match="out of luck"):
        bench.run()


def test_a_job_whose_results_were_taken_in_just_before_a_kill_is_not_missed(bench: Bench) -> None:
    class Dying(Wrapped):
        def forget(self, *_: object) -> None:
            raise KeyboardInterrupt

    whole, bench.queue = bench.queue, Dying(bench.queue)
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.queue = whole
    assert bench.states() == {"a": "skipped", "sub/b": "done"}
    assert not (bench.out / ".voxport").exists()


# Places that fail


def test_a_second_batch_is_kept_away(bench: Bench) -> None:
    with held(bench.results, LOCKS), pytest.raises(UsageError, match="another batch writes to"):
        bench.run()
    bench.run()


def test_a_lock_that_cannot_be_had_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(OutputError, match="no locks available"), held(bench.results, LOCKS):
        pass


def test_a_folder_that_cannot_be_made_is_told(bench: Bench) -> None:
    bench.out.write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match="expected a place"):
        bench.run()


def test_a_disk_that_is_full_ends_the_batch_and_the_next_run_goes_on(bench: Bench) -> None:
    bench.blobs.full = True
    with pytest.raises(OutputError, match="no space left"):
        bench.run()
    bench.blobs.full = False
    assert bench.states() == {"a": "done", "sub/b": "done"}


def test_a_disk_that_is_full_while_jobs_run_is_waited_out(bench: Bench) -> None:
    bench.put("c.nii")

    class Filling(MemoryBlobs):
        def put(self, name: str, content: Any) -> str:
            if "/inputs/" in name and self.contents and not bench.ran:
                raise OutputError.cannot_write(name, "the disk is full")
            return super().put(name, content)

    def handler(attempt: Attempt) -> Results:
        while not bench.listener.warnings:
            threading.Event().wait(0.01)
        return bench.handler(attempt)

    bench.blobs = Filling()
    assert set(bench.states(handler=handler).values()) == {"done"}
    assert bench.listener.warnings == ["waiting: the queue's files: the disk is full"]


def test_what_keeps_a_job_waiting_is_told_once(bench: Bench) -> None:
    tries: dict[str, int] = {}

    def handler(attempt: Attempt) -> Results:
        tries[attempt.job.id] = tries.get(attempt.job.id, 0) + 1
        if tries[attempt.job.id] < 6:
            raise OSError(28, "No space left on device")
        return bench.handler(attempt)

    assert set(bench.states(handler=handler).values()) == {"done"}
    assert sum("a: the system refused: no space" in warning for warning in bench.listener.warnings) == 1


def test_a_full_queue_and_a_database_that_is_away_are_waited_out(bench: Bench) -> None:
    class Moody(Wrapped):
        calls = 0

        def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
            self.calls += 1
            if self.calls == 1:
                raise BusyError("queue", expected="room", got="none", retry_after_seconds=1)
            if self.calls == 2:
                raise ConnectionError("the job database: away")
            return self._queue.submit(case, owner, key=key)

        def get(self, id: str, owner: str | None = None) -> Job:
            self.calls += 1
            if self.calls < 8:
                raise ConnectionError("the job database: away")
            return self._queue.get(id, owner)

    bench.queue = Moody(bench.queue)
    assert set(bench.states().values()) == {"done"}
    assert bench.listener.warnings == ["waiting: the job database: away"]


def test_a_database_that_cannot_be_reached_at_the_start_is_told(bench: Bench) -> None:
    def away() -> JobPorts:
        raise ConnectionError("the job database: away")

    with pytest.raises(VoxportError, match=r"a database that answers.*delete .*out/\.voxport"):
        bench.run(open_ports=away)
    with pytest.raises(VoxportError, match=r"a database that answers.*VOXPORT_JOBS__DATABASE"):
        bench.run(open_ports=away, shared=True)


# A queue that others share


class SharedWorkers:
    """Workers of a shared queue, started by hand."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: bench.queue.work(bench.handler, 2, self._stop))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_over_a_shared_queue_others_do_the_work_and_failed_jobs_stay_for_operators(bench: Bench) -> None:
    for number in range(6):
        bench.put(f"more-{number}.nii", number, (6, 6, 6))
    bad = bench.put("bad.nii")
    good = bad.read_bytes()
    bad.write_bytes(b"no volume")
    with SharedWorkers(bench):
        states = bench.states(shared=True)
        assert states.pop("bad") == "failed"
        assert set(states.values()) == {"done"}
        (job,) = bench.queue.list(OWNER)
        assert job.state == "failed"
        assert not (bench.out / ".voxport").exists()
        bad.write_bytes(good)
        again = bench.states(shared=True)
        assert (again.pop("bad"), set(again.values())) == ("done", {"skipped"})


def test_a_job_that_failed_before_is_tried_again_on_the_shared_queue(bench: Bench) -> None:
    def stop() -> None:
        if any(job.state == "failed" for job in bench.queue.list()):
            raise KeyboardInterrupt

    bench.fails, bench.listener.after_move = True, stop
    with SharedWorkers(bench), pytest.raises(KeyboardInterrupt):
        bench.run(shared=True)
    bench.fails, bench.listener = False, Listener()
    ids = {job.id for job in bench.queue.list()}
    with SharedWorkers(bench):
        assert bench.states(shared=True) == {"a": "done", "sub/b": "done"}
    assert set(bench.ran) <= ids


def test_a_shared_queue_without_workers_is_told_and_one_that_is_away_waited_for(bench: Bench) -> None:
    for number in range(4):
        bench.put(f"more-{number}.nii", number, (6, 6, 6))

    class Moody(Wrapped):
        calls = 0

        def stats(self) -> QueueStats:
            self.calls += 1
            if self.calls in (2, 3):
                raise ConnectionError("the job database: away")
            if self.calls == 6:
                workers.__enter__()
            return self._queue.stats()

    bench.queue = Moody(bench.queue)
    workers = SharedWorkers(bench)
    try:
        assert set(bench.states(shared=True).values()) == {"done"}
    finally:
        workers.__exit__()
    told = [warning for warning in bench.listener.warnings if "no worker" in warning]
    assert len(told) == 1


# Which files are looked at


def test_hidden_files_other_files_and_results_are_no_cases(bench: Bench) -> None:
    bench.out = bench.volumes / "results"
    for name in (".hidden.nii", ".git/x.nii", "notes.txt", "results/old.nii", "folder.nii/deep.nii"):
        path = bench.volumes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = [case.name for case in find_cases(bench.volumes, bench.results, 1, None, ("mask",), PORTS.volumes)]
    assert names == ["a", "folder.nii/deep", "sub/b"]


def test_a_link_to_a_missing_file_is_a_failed_case(bench: Bench) -> None:
    (bench.volumes / "gone.nii.gz").symlink_to("../.git/annex/objects/xy/SHA256E-s1")
    (bench.volumes / "loop.nii").symlink_to("loop.nii")
    os.mkfifo(bench.volumes / "pipe.nii")
    ended = bench.run()
    assert {name: case.state for name, case in ended.items()} == {
        **{"a": "done", "sub/b": "done"},
        **dict.fromkeys(("gone", "loop", "pipe"), "failed"),
    }
    reason = str(ended["gone"].reason)
    assert "got a link to ../.git/annex/objects/xy/SHA256E-s1, which is missing" in reason
    assert "git annex get 'gone.nii.gz'" in reason
    assert "not a regular file" in str(ended["pipe"].reason)


def test_a_missing_channel_file_fails_its_case_alone(bench: Bench) -> None:
    (bench.volumes / "c_T1.nii").symlink_to("nowhere")
    (bench.volumes / "c_T2.nii").symlink_to(bench.volumes / "a.nii")
    pattern = CasePattern("{case}_{channel}.nii", ("T1", "T2"))
    (case,) = find_cases(bench.volumes, bench.results, 2, pattern, ("mask",), PORTS.volumes)
    assert case.files == ("c_T1.nii", "c_T2.nii")
    assert "c_T1.nii: expected a file that can be read" in str(case.problem)


@pytest.mark.parametrize("ending", [".nrrd", ".mgz", ".img", ".tif"])
def test_files_that_the_pattern_names_are_cases_whatever_their_ending(bench: Bench, ending: str) -> None:
    (bench.volumes / f"c{ending}").write_bytes(b"something else" * 99)
    bench.pattern = CasePattern(f"{{case}}{ending}")
    assert bench.states() == {"c": "failed"}


def test_folders_elsewhere_that_are_linked_to_are_looked_through_once(bench: Bench) -> None:
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.nii").write_bytes(b"a volume")
    (elsewhere / "back").symlink_to(bench.volumes)
    (bench.volumes / "linked").symlink_to(elsewhere)
    (bench.volumes / "linked again").symlink_to(elsewhere)
    (bench.volumes / "twin").symlink_to("sub")
    names = [case.name for case in find_cases(bench.volumes, bench.results, 1, None, ("mask",), PORTS.volumes)]
    assert names == ["a", "linked/c", "sub/b"]


def test_a_pattern_says_what_is_a_case(bench: Bench) -> None:
    bench.pattern = CasePattern("sub/{case}.nii")
    assert bench.states() == {"b": "done"}
    assert "b.nii.gz" in bench.files()


def test_results_never_replace_volumes(bench: Bench) -> None:
    bench.out = bench.folder
    bench.put("in/a.nii.gz", 5)
    before = (bench.volumes / "a.nii.gz").read_bytes()
    ended = bench.run()
    assert ended["in/a"].state == "failed"
    assert "got an input" in str(ended["in/a"].reason)
    assert (bench.volumes / "a.nii.gz").read_bytes() == before


def test_folders_without_cases_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="got 2 volumes that do not"):
        find_cases(bench.volumes, bench.results, 1, CasePattern("x/{case}.nii"), ("mask",), PORTS.volumes)
    with pytest.raises(InputError, match="got no folder"):
        find_cases(bench.folder / "x", bench.results, 1, None, ("mask",), PORTS.volumes)
    (bench.folder / "empty").mkdir()
    with pytest.raises(InputError, match="got no volumes"):
        find_cases(bench.folder / "empty", bench.results, 1, None, ("mask",), PORTS.volumes)
    with pytest.raises(UsageError, match="another folder than that of the volumes"):
        find_cases(bench.volumes, BatchFolder(bench.volumes), 1, None, ("mask",), PORTS.volumes)

    def refuse(path: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="permission denied"):
        find_cases(bench.volumes, bench.results, 1, None, ("mask",), PORTS.volumes)


def test_odd_folders_give_a_queue_of_their_own_or_are_refused(tmp_path: Path) -> None:
    odd = BatchFolder(tmp_path / "50%? done")
    settings = odd.queue_settings(3)
    assert settings["jobs"]["database"].endswith("/50%25%3F done/.voxport/jobs.sqlite")
    assert settings["serving"] == {"slots": 3}
    assert set(settings) == {"jobs", "serving"}
    with pytest.raises(UsageError, match="without ::"):
        BatchFolder(tmp_path / "a::b")


def test_workers_of_a_cluster_are_told_the_folder_of_the_batch(tmp_path: Path) -> None:
    folder = BatchFolder(tmp_path / "out")
    settings = folder.queue_settings(2, {"address": "tcp://10.0.0.1:8786"})
    state = str(tmp_path / "out" / ".voxport")
    assert settings["cluster"] == {"address": "tcp://10.0.0.1:8786", "folder": state}
    assert settings["scratch_dir"] == state
    assert settings["jobs"] == folder.queue_settings(2)["jobs"]


# Watching


def test_a_watched_folder_gets_masks_of_cases_that_come_and_change_until_it_is_stopped(bench: Bench) -> None:
    """First two cases, then a third one, then the first one anew; each step when the one before has ended."""

    def come() -> None:
        bench.put("c.nii", 3)

    def change() -> None:
        bench.put("a.nii.gz", 4)

    steps = {2: come, 3: change, 4: interrupt}

    def step() -> None:
        ended = len(bench.listener.results)
        if ended in steps:
            steps.pop(ended)()

    bench.listener.after_move = step
    with pytest.raises(KeyboardInterrupt):
        bench.run(settle_seconds=0.05)
    assert sorted(bench.listener.results[:2]) == [("a", "done"), ("sub/b", "done")]
    assert bench.listener.results[2:] == [("c", "done"), ("a", "done")]
    assert {row["case"] for row in bench.table()} == {"a", "sub/b", "c"}
    changed = bench.report("a")["inputs"][0]["sha256"]
    assert changed == hashlib.sha256((bench.volumes / "a.nii.gz").read_bytes()).hexdigest()

    bench.listener = Listener()
    bench.listener.after_move = lambda: len(bench.listener.results) == 3 and interrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.run(no_job, settle_seconds=0.05)
    assert {state for _, state in bench.listener.results} == {"skipped"}


def test_a_case_is_whole_when_its_files_have_stayed_as_they_are(bench: Bench) -> None:
    now = [0.0]
    bench.pattern = CasePattern("{case}_{channel}.nii", ("t1", "t2"))

    def find() -> tuple[CaseFiles, ...]:
        return find_cases(bench.volumes, bench.results, 2, bench.pattern, ("mask",), PORTS.volumes)

    said: list[str] = []
    watch = Watch(find, bench.volumes, 10.0, lambda: now[0], said.append)

    def after(seconds: float) -> list[str]:
        now[0] += seconds
        return [case.name for case in watch()]

    bench.put("x_t1.nii", 1)
    assert after(1) == after(20) == []  # a channel is missing
    second = bench.put("x_t2.nii", 2)
    assert after(1) == []
    second.write_bytes(second.read_bytes() + b"more")
    assert after(9) == []  # it has grown
    assert after(9) == []
    assert after(1) == ["x"]
    assert after(20) == []  # once
    second.write_bytes(second.read_bytes() + b"more")
    assert after(2) == []
    assert after(10) == ["x"]
    assert said == []
    second.unlink()
    assert after(20) == after(20) == after(45) == after(90) == []
    (line,) = said
    assert line.startswith("x waits: expected ")
    assert "t2" in line
    second.symlink_to("nowhere.nii")
    assert after(1) == after(70) == []
    bench.put("x_t2.nii", 3)
    assert after(1) == []
    assert after(10) == ["x"]


def test_a_failed_case_of_a_watched_folder_is_tried_again_when_it_changes_only(bench: Bench) -> None:
    (bench.volumes / "sub/b.nii").unlink()
    (bench.volumes / "a.nii.gz").write_bytes(b"half a file")

    def mend() -> None:
        bench.put("a.nii.gz", 1)

    steps = {1: mend, 2: interrupt}
    bench.listener.after_move = lambda: steps.pop(len(bench.listener.results), lambda: None)()
    with pytest.raises(KeyboardInterrupt):
        bench.run(settle_seconds=0.05)
    assert bench.listener.results == [("a", "failed"), ("a", "done")]


def test_a_folder_that_is_not_there_is_refused_at_once(bench: Bench) -> None:
    shutil.rmtree(bench.volumes)
    with pytest.raises(InputError, match="no folder"):
        bench.run(no_job, settle_seconds=0.05)
