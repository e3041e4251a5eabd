"""A process does its share of the jobs, clears away what is old, and keeps at it whatever ends its worker."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.scratch.folders import ScratchFolders
from voxport.domain.errors import CancelledError
from voxport.domain.job import Job
from voxport.ports.job_queue import Attempt, Handler, JobQueue, Results
from voxport.services.jobs import worker as working
from voxport.services.jobs.admission import Slots
from voxport.services.jobs.run import JobSettings
from voxport.services.jobs.submit import JobPorts
from voxport.services.jobs.worker import in_a_slot, keep_working, wait_for_models, work_on_jobs
from voxport.services.models.registry import ServedModels
from voxport.testing.blobs import MemoryBlobs
from voxport.testing.job_queue import Gate, example_case, results_of, run_to_the_end, wait_until
from voxport.testing.job_queue import working as working_on
from voxport.testing.job_queue_fake import MemoryJobQueue


class Looked:
    """Models that have been looked at after so many glances."""

    def __init__(self, glances: int = 0) -> None:
        self.left = glances

    def wait(self, seconds: float | None = None) -> bool:  # noqa: ARG002 - as ServedModels
        """One glance."""
        self.left -= 1
        return self.left < 0


def models(glances: int = 0) -> ServedModels:
    return Looked(glances)  # type: ignore[return-value]


def test_a_worker_that_fails_begins_again_until_it_is_stop_on_signals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(working, "_AGAIN_SECONDS", 0.0)
    stop = threading.Event()
    begun: list[int] = []

    def work(given: threading.Event) -> None:
        begun.append(1)
        if len(begun) < 3:
            raise ConnectionError("away")
        given.set()

    keep_working(work, models(3), stop)
    assert len(begun) == 3
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_nothing_is_begun_once_it_is_stop_on_signals() -> None:
    stop = threading.Event()
    stop.set()
    keep_working(lambda _: pytest.fail("begun"), models(10**9), stop)


def test_a_worker_that_ends_by_itself_begins_again_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()
    begun: list[int] = []

    def work(given: threading.Event) -> None:
        begun.append(1)
        if len(begun) == 2:
            given.set()

    keep_working(work, models(), stop)
    assert len(begun) == 2
    assert caplog.records == []


@pytest.mark.parametrize("stopped", [False, True])
def test_models_are_waited_for_until_it_is_stop_on_signals(stopped: bool) -> None:
    stop, looked = threading.Event(), Looked(3)
    if stopped:
        stop.set()
    wait_for_models(looked, stop)  # type: ignore[arg-type]
    assert looked.left == (3 if stopped else -1)


# A share of the jobs


class Share:
    """A worker in a thread of its own, on a queue and blobs in memory."""

    def __init__(self, scratch: Path, queue: JobQueue | None = None, **settings: float) -> None:
        self.queue, self.blobs, self.stop = queue or MemoryJobQueue(), MemoryBlobs(), threading.Event()
        self.folders = ScratchFolders(scratch, FileLocks())
        self.settings = JobSettings("1.0", **settings)  # type: ignore[arg-type]

    def work(self, handler: Handler, concurrency: int = 1) -> None:
        """Until ``stop`` is set."""
        ports = JobPorts(self.queue, self.blobs)
        work_on_jobs(concurrency, self.stop, handler=handler, ports=ports, settings=self.settings, folders=self.folders)

    def ended(self, job: Job) -> bool:
        return self.queue.get(job.id).has_ended


def test_jobs_are_run_at_once_as_many_as_asked_for(tmp_path: Path) -> None:
    share, gate = Share(tmp_path), Gate()
    jobs = [share.queue.submit(example_case(number), "ada") for number in range(4)]
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(share.work, gate, 3)
        wait_until(lambda: len(gate.running) == 3)
        gate.opened.set()
        wait_until(lambda: all(share.ended(job) for job in jobs))
        share.stop.set()
        work.result(timeout=10)
    assert gate.most == 3


def test_what_killed_processes_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "voxport-run-killed"
    left.mkdir()
    (left / ".lock").touch()
    share = Share(tmp_path)
    share.stop.set()
    share.work(run_to_the_end)
    assert list(tmp_path.iterdir()) == []


def test_old_jobs_are_deleted_again_and_again_also_where_it_failed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    share = Share(tmp_path, retention_seconds=0.01, sweep_every_seconds=0.02)
    list_jobs = share.queue.list
    failing = iter([ConnectionError("the job database: away"), ZeroDivisionError()])

    def list_or_fail(*arguments: object, **options: object) -> tuple[Job, ...]:
        if (error := next(failing, None)) is not None:
            raise error
        return list_jobs(*arguments, **options)  # type: ignore[arg-type]

    share.queue.list = list_or_fail  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(share.work, run_to_the_end)
        for number in range(3):
            case = example_case(number)
            share.blobs.put(case.inputs[0].blob, io.BytesIO(b"x"))
            share.queue.submit(case, "ada")
            wait_until(lambda: list_jobs() == () and share.blobs.contents == {})
        share.stop.set()
        work.result(timeout=10)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the job database: away; old jobs are deleted later"),
        ("ERROR", "old jobs are deleted later"),
    ]


def test_where_the_worker_fails_the_sweep_ends_with_it(tmp_path: Path) -> None:
    class Failing(MemoryJobQueue):
        def work(self, handler: Handler, concurrency: int, stop: threading.Event) -> NoReturn:  # noqa: ARG002
            raise RuntimeError("this process runs jobs already")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="already"):
        Share(tmp_path, Failing(), sweep_every_seconds=3600.0).work(run_to_the_end)
    assert threading.active_count() == before


class Receivers:
    """Callbacks of which the first fail; a later one ends the work."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.delivered = [*errors], threading.Event()

    def deliver(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.delivered.set()


class UntilDelivered(MemoryJobQueue):
    """A queue that is worked on until callbacks are delivered."""

    def __init__(self, receivers: Receivers) -> None:
        super().__init__()
        self._receivers = receivers

    def work(self, handler: Handler, concurrency: int, stop: threading.Event) -> None:  # noqa: ARG002
        assert self._receivers.delivered.wait(10)


def test_callbacks_are_made_beside_the_jobs_also_where_they_failed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(working, "_CALL_SECONDS", 0.0)
    receivers = Receivers(ConnectionError("the job database: away"), ZeroDivisionError())
    share, before = Share(tmp_path, UntilDelivered(receivers)), threading.active_count()
    work_on_jobs(
        1,
        share.stop,
        handler=run_to_the_end,
        ports=JobPorts(share.queue, share.blobs),
        settings=share.settings,
        folders=share.folders,
        callbacks=receivers,  # type: ignore[arg-type]
    )
    assert threading.active_count() == before
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the job database: away; callbacks are sent later"),
        ("ERROR", "callbacks are sent later"),
    ]


# In the slots of requests


def test_a_job_waits_for_a_slot_in_its_turn() -> None:
    slots, queue = Slots(1, 0), MemoryJobQueue()
    job = queue.submit(example_case(), "ada")
    ran: list[int] = []

    def handler(attempt: Attempt) -> Results:
        ran.append(slots.held)
        return results_of(attempt.job)

    with ExitStack() as slot:
        slot.enter_context(slots.hold())
        with working_on(queue, in_a_slot(handler, slots)):
            wait_until(lambda: slots.waiting == 1)
            assert (queue.get(job.id).state, ran) == ("running", [])
            slot.close()
            wait_until(lambda: queue.get(job.id).state == "done")
    assert ran == [1]
    assert (slots.held, slots.waiting) == (0, 0)


def test_a_job_that_waits_for_a_slot_can_be_cancelled() -> None:
    slots, queue = Slots(1, 0), MemoryJobQueue()
    job = queue.submit(example_case(), "ada")
    with slots.hold(), working_on(queue, in_a_slot(run_to_the_end, slots)):
        wait_until(lambda: slots.waiting == 1)
        queue.cancel(job.id)
        wait_until(lambda: queue.get(job.id).state == "cancelled")
    assert slots.waiting == 0


def test_a_slot_is_given_back_however_a_job_ends() -> None:
    slots = Slots(1, 0)

    def handler(attempt: Attempt) -> NoReturn:  # noqa: ARG001
        raise CancelledError

    with pytest.raises(CancelledError):
        in_a_slot(handler, slots)(Attempt)  # type: ignore[arg-type]
    assert slots.held == 0
