"""Contract suite of `JobQueue`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NoReturn, cast

import pytest

from ..domain.errors import BusyError, InputError, OutputError, UnknownJobError, UsageError
from ..domain.job import Job, JobCase, JobFailure, JobState, StoredFile
from ..ports.job_queue import Attempt, Handler, JobQueue, QueueLimits, Results

_PATIENCE_SECONDS = 30.0
_QUICK = QueueLimits(backoff_seconds=0.01)


def example_case(number: int = 0) -> JobCase:
    """Return a case of one volume, different for each number."""
    scan = StoredFile(f"scan-{number}.nii.gz", f"case-{number}/inputs/0", f"{number:064x}")
    return JobCase(f"case-{number}", (scan,), "vessels:1.0.0", {"overlap": 0.5, "patch": [8, 8, 8]})


def results_of(job: Job) -> Results:
    """Return the results of a handler that does nothing."""
    return {"mask": StoredFile("mask.nii.gz", f"{job.case.folder}/{job.attempts}/mask.nii.gz", "f" * 64)}


def wait_until(condition: Callable[[], bool], patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Wait for a condition; one that misses a file does not hold yet. AssertionError if it takes too long."""
    ends = time.monotonic() + patience_seconds
    while True:
        with suppress(FileNotFoundError):
            if condition():
                return
        assert time.monotonic() < ends, "waited too long"
        threading.Event().wait(0.01)


@contextmanager
def working(queue: JobQueue, handler: Handler, concurrency: int = 1) -> Iterator[threading.Event]:
    """Run a worker in a thread; yields the event that stops it."""
    pool, stop = ThreadPoolExecutor(1), threading.Event()
    work = pool.submit(queue.work, handler, concurrency, stop)
    try:
        yield stop
    finally:
        stop.set()
        pool.shutdown(wait=False)
        work.result(_PATIENCE_SECONDS)


def _failing(error: BaseException) -> Handler:
    def handler(attempt: Attempt) -> NoReturn:  # noqa: ARG001
        raise error

    return handler


def run_to_the_end(attempt: Attempt) -> Results:
    """Handler of four empty tiles."""
    for done in range(5):
        attempt.report(done, 4)
    return results_of(attempt.job)


class Gate:
    """Handler that reports tiles until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.running: list[str] = []
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, attempt: Attempt) -> Results:
        with self._lock:
            self.running.append(attempt.job.id)
            self.most = max(self.most, len(self.running))
        try:
            while not self.opened.wait(0.01):
                attempt.report(1, 4)
            attempt.report(4, 4)
        finally:
            with self._lock:
                self.running.remove(attempt.job.id)
        return results_of(attempt.job)


class JobQueueContract:
    """Subclass and implement ``make_queue``."""

    queue: JobQueue

    @pytest.fixture
    def surroundings(self) -> None:
        """Override to prepare what ``make_queue`` needs."""

    @pytest.fixture(autouse=True)
    def _fresh_queue(self, surroundings: None) -> Iterator[None]:  # noqa: ARG002 - to come after it
        self._made: list[JobQueue] = []
        self.queue = self._make(_QUICK)
        yield
        for queue in self._made:
            queue.close()

    def make_queue(self, limits: QueueLimits) -> JobQueue:
        """Return an empty queue."""
        raise NotImplementedError

    def _make(self, limits: QueueLimits) -> JobQueue:
        queue = self.make_queue(limits)
        self._made.append(queue)
        return queue

    # Submitting

    def test_a_job_is_kept_as_it_was_submitted(self) -> None:
        before = time.time()
        job = self.queue.submit(example_case(), "ada")
        assert (job.case, job.owner, job.state, job.position, job.attempts) == (example_case(), "ada", "queued", 0, 0)
        assert before - 1 <= job.submitted <= time.time() + 1
        assert self.queue.get(job.id) == job
        assert self.queue.get(job.id, "ada") == job

    def test_positions_count_from_the_head_of_the_queue(self) -> None:
        jobs = [self.queue.submit(example_case(n), "ada") for n in range(3)]
        assert [self.queue.get(job.id).position for job in jobs] == [0, 1, 2]
        self.queue.cancel(jobs[1].id)
        assert [self.queue.get(job.id).position for job in jobs] == [0, None, 1]

    def test_the_same_key_of_the_same_owner_gives_the_same_job(self) -> None:
        first = self.queue.submit(example_case(), "ada", key="monday")
        assert self.queue.submit(example_case(), "ada", key="monday").id == first.id
        assert self.queue.submit(example_case(), "ada", key="tuesday").id != first.id
        assert self.queue.submit(example_case(), "bob", key="monday").id != first.id
        assert self.queue.submit(example_case(), "ada").id != first.id

    def test_a_key_stands_for_one_case(self) -> None:
        self.queue.submit(example_case(1), "ada", key="monday")
        with pytest.raises(UsageError, match="monday"):
            self.queue.submit(example_case(2), "ada", key="monday")

    def test_a_key_sent_from_several_threads_at_once_makes_one_job(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda _: self.queue.submit(example_case(), "ada", key="k").id, range(4))
        assert len(set(found)) == 1

    def test_a_full_queue_says_when_to_come_back_and_keeps_what_it_has(self) -> None:
        queue = self._make(QueueLimits(length=2))
        kept = [queue.submit(example_case(n), "ada", key=str(n)).id for n in range(2)]
        with pytest.raises(BusyError) as refused:
            queue.submit(example_case(2), "ada")
        assert refused.value.retry_after_seconds > 0
        assert queue.submit(example_case(0), "ada", key="0").id == kept[0]
        assert {job.id for job in queue.list()} == set(kept)
        queue.cancel(kept[0])
        queue.submit(example_case(2), "ada")

    # Owners

    def test_a_job_of_another_owner_is_not_found(self) -> None:
        job = self.queue.submit(example_case(), "ada")
        for ask in (self.queue.get, self.queue.cancel, self.queue.retry, self.queue.forget):
            with pytest.raises(UnknownJobError):
                ask(job.id, "bob")
            with pytest.raises(UnknownJobError):
                ask("no such id")
        assert self.queue.get(job.id).state == "queued"

    def test_jobs_are_listed_by_owner_and_state_the_latest_first(self) -> None:
        ids = [self.queue.submit(example_case(n), owner).id for n, owner in enumerate(("ada", "bob", "ada"))]
        self.queue.cancel(ids[0])
        assert [job.id for job in self.queue.list()] == ids[::-1]
        assert [job.id for job in self.queue.list("ada")] == [ids[2], ids[0]]
        assert [job.id for job in self.queue.list("ada", ["cancelled", "done"])] == [ids[0]]
        assert [job.id for job in self.queue.list(limit=2)] == [ids[2], ids[1]]
        ended = self.queue.get(ids[0]).ended
        assert ended is not None
        assert [job.id for job in self.queue.list(ended_before=ended + 1)] == [ids[0]]
        assert self.queue.list(ended_before=ended) == ()
        assert [job.position for job in self.queue.list()] == [1, 0, None]

    # Changing one's mind

    def test_a_cancelled_job_is_never_run(self) -> None:
        first, second = (self.queue.submit(example_case(n), "ada") for n in range(2))
        cancelled = self.queue.cancel(first.id)
        assert cancelled.state == "cancelled"
        assert cancelled.ended is not None
        with working(self.queue, run_to_the_end):
            self._wait_for(second, "done")
        assert self.queue.get(first.id).attempts == 0
        assert self.queue.cancel(second.id).state == "done"

    def test_a_cancelled_job_can_be_retried_as_the_last_in_the_queue(self) -> None:
        job, other = (self.queue.submit(example_case(n), "ada") for n in range(2))
        self.queue.cancel(job.id)
        again = self.queue.retry(job.id, "ada")
        assert (again.state, again.position) == ("queued", 1)
        assert self.queue.get(other.id).position == 0
        with working(self.queue, run_to_the_end):
            self._wait_for(job, "done")
        with pytest.raises(UsageError):
            self.queue.retry(job.id)

    def test_only_what_has_ended_is_forgotten_and_its_key_with_it(self) -> None:
        job = self.queue.submit(example_case(1), "ada", key="k")
        with pytest.raises(UsageError):
            self.queue.forget(job.id)
        self.queue.cancel(job.id)
        self.queue.forget(job.id, "ada")
        with pytest.raises(UnknownJobError):
            self.queue.get(job.id)
        assert self.queue.submit(example_case(2), "ada", key="k").id != job.id

    # Working

    def test_jobs_are_run_in_order_and_keep_their_results(self) -> None:
        jobs = [self.queue.submit(example_case(n), "ada") for n in range(4)]
        order: list[str] = []

        def handler(attempt: Attempt) -> Results:
            order.append(attempt.job.id)
            return run_to_the_end(attempt)

        with working(self.queue, handler):
            for job in jobs:
                self._wait_for(job, "done")
        assert order == [job.id for job in jobs]
        ended = self.queue.get(jobs[0].id)
        assert ended.results == results_of(ended)
        assert (ended.attempts, ended.tiles_done, ended.tiles_total, ended.failure) == (1, 4, 4, None)
        assert ended.submitted <= (ended.started or 0) <= (ended.ended or 0)

    def test_no_more_run_at_a_time_than_asked_for(self) -> None:
        jobs = [self.queue.submit(example_case(n), "ada") for n in range(4)]
        gate = Gate()
        with working(self.queue, gate, concurrency=2):
            wait_until(lambda: len(gate.running) == 2)
            gate.opened.set()
            for job in jobs:
                self._wait_for(job, "done")
        assert gate.most == 2

    def test_tiles_are_seen_while_it_runs(self) -> None:
        job = self.queue.submit(example_case(), "ada")
        gate = Gate()
        with working(self.queue, gate):
            wait_until(lambda: self.queue.get(job.id).tiles_total == 4)
            running = self.queue.get(job.id)
            assert (running.state, running.tiles_done, running.position) == ("running", 1, None)
            gate.opened.set()
            self._wait_for(job, "done")

    def test_a_running_job_that_is_cancelled_stops_at_its_next_report(self) -> None:
        job = self.queue.submit(example_case(), "ada")
        gate = Gate()
        with working(self.queue, gate):
            self._wait_for(job, "running")
            assert self.queue.cancel(job.id).cancelling
            self._wait_for(job, "cancelled")
            wait_until(lambda: not gate.running)
        assert not self.queue.get(job.id).cancelling

    def test_a_case_that_cannot_be_done_fails_at_once_with_its_reason(self) -> None:
        error = InputError("scan.nii", expected="3 axes", got="2", do="give a volume")
        failed = self._run(_failing(error), "failed")
        assert failed.attempts == 1
        assert failed.failure == JobFailure("input", "scan.nii: expected 3 axes, got 2; give a volume")

    def test_a_poison_job_is_set_aside_with_its_error_and_the_others_go_on(self) -> None:
        poison, good = (self.queue.submit(example_case(n), "ada") for n in range(2))

        def handler(attempt: Attempt) -> Results:
            if attempt.job.id == poison.id:
                raise ZeroDivisionError("of a secret")
            return run_to_the_end(attempt)

        with working(self.queue, handler):
            self._wait_for(good, "done")
            dead = self._wait_for(poison, "parked")
        assert (dead.attempts, dead.failed_attempts) == (3, 3)
        assert dead.failure is not None
        assert dead.failure.kind == "internal"
        assert "secret" not in dead.failure.detail
        again = self.queue.retry(poison.id)
        assert (again.state, again.failed_attempts) == ("queued", 0)

    @pytest.mark.parametrize("result", [None, {"mask": "a path"}, SystemExit(1)])
    def test_a_handler_that_gives_no_results_is_a_failed_attempt(self, result: object) -> None:
        def handler(attempt: Attempt) -> Results:  # noqa: ARG001
            if isinstance(result, BaseException):
                raise result
            return cast("Results", result)

        dead = self._run(handler, "parked")
        assert (dead.failed_attempts, dead.results) == (3, {})
        assert dead.failure is not None
        assert dead.failure.kind == "internal"

    def test_a_reason_is_kept_whatever_its_text(self) -> None:
        error = InputError("scan\0.nii", expected="a name", got="\ud800" + "x" * 100_000, do="give another")
        failed = self._run(_failing(error), "failed")
        assert failed.failure is not None
        assert failed.failure.detail.startswith("scan")

    def test_a_full_disk_is_waited_out(self) -> None:
        job = self.queue.submit(example_case(), "ada")
        room = threading.Event()

        def handler(attempt: Attempt) -> Results:
            if not room.is_set():
                raise OutputError.cannot_write("blobs", "no space left on device")
            return run_to_the_end(attempt)

        with working(self.queue, handler):
            wait_until(lambda: self.queue.get(job.id).attempts > 4)
            waiting = self.queue.get(job.id)
            assert waiting.failure is not None
            assert waiting.failure.kind == "output"
            assert waiting.state in ("queued", "running")
            room.set()
            done = self._wait_for(job, "done")
        assert (done.failed_attempts, done.failure) == (0, None)

    def test_a_job_that_is_waited_out_keeps_nobody_waiting(self) -> None:
        self.queue = self._make(QueueLimits(backoff_seconds=_PATIENCE_SECONDS))
        jobs = [self.queue.submit(example_case(n), "ada") for n in range(3)]

        def handler(attempt: Attempt) -> Results:
            if attempt.job.id == jobs[0].id:
                raise OSError(28, "No space left on device")
            return run_to_the_end(attempt)

        with working(self.queue, handler):
            for job in jobs[1:]:
                self._wait_for(job, "done")
            waiting = self.queue.get(jobs[0].id)
        assert (waiting.state, waiting.attempts) == ("queued", 1)

    def test_a_worker_that_stops_gives_its_job_back_and_another_goes_on(self) -> None:
        job, later = (self.queue.submit(example_case(n), "ada") for n in range(2))
        with working(self.queue, Gate()):
            self._wait_for(job, "running")
        given_back = self.queue.get(job.id)
        assert (given_back.state, given_back.failed_attempts, given_back.position) == ("queued", 0, 0)
        assert self.queue.get(later.id).position == 1
        with working(self.queue, run_to_the_end):
            assert self._wait_for(job, "done").attempts == 2
            self._wait_for(later, "done")

    def test_the_numbers_add_up(self) -> None:
        empty = self.queue.stats()
        assert sum(empty.counts.values()) == 0
        assert empty.oldest_queued_seconds == 0
        jobs = [self.queue.submit(example_case(n), "ada") for n in range(3)]
        self.queue.cancel(jobs[0].id)
        assert {state: n for state, n in self.queue.stats().counts.items() if n} == {"queued": 2, "cancelled": 1}
        assert 0 <= self.queue.stats().oldest_queued_seconds < _PATIENCE_SECONDS
        gate = Gate()
        with working(self.queue, gate, concurrency=2):
            self._wait_for(jobs[1], "running")
            assert (self.queue.stats().workers, self.queue.stats().slots) == (1, 2)
            gate.opened.set()
            self._wait_for(jobs[1], "done")
            self._wait_for(jobs[2], "done")
        assert (self.queue.stats().typical_seconds or 0) > 0
        assert self.queue.stats().workers == 0
        self.queue.forget(jobs[0].id)
        ended = {state: n for state, n in self.queue.stats().ended.items() if n}
        assert ended == {"done": 2, "cancelled": 1}

    def _run(self, handler: Handler, state: JobState) -> Job:
        """Submit a job, and run a worker until the job has a state."""
        job = self.queue.submit(example_case(), "ada")
        with working(self.queue, handler):
            return self._wait_for(job, state)

    def _wait_for(self, job: Job, state: JobState) -> Job:
        wait_until(lambda: self.queue.get(job.id).state == state)
        return self.queue.get(job.id)
