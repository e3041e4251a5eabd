"""Workers are processes that are really killed; no job is lost by it, and none ends twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.domain.job import Job
from voxport.ports.job_queue import JobQueue, QueueLimits
from voxport.testing.job_queue import JobQueueContract, example_case, results_of, wait_until

from .processes import Postgres, Workers, workers_on


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database(f"jobs_{os.getpid()}_{abs(hash(request.node.name)) % 10**9}")


@pytest.fixture
def queue(url: str) -> Iterator[JobQueue]:
    with closing(DbosJobQueue(url)) as queue:
        yield queue


@pytest.fixture
def workers(url: str, tmp_path: Path) -> Iterator[Workers]:
    with workers_on(url, tmp_path / "workers") as workers:
        yield workers


def submit(queue: JobQueue, number: int = 0, **options: bool) -> Job:
    return queue.submit(replace(example_case(number), options=options), "ada")


def ended_well(queue: JobQueue, job: Job) -> bool:
    return queue.get(job.id).state == "done"


def test_a_killed_workers_job_goes_on_at_once_in_the_next_process(queue: JobQueue, workers: Workers) -> None:
    job = submit(queue, hold=True)
    first = workers.start()
    wait_until(lambda: queue.get(job.id).tiles_done == 4)
    first.kill()
    first.wait()
    assert queue.get(job.id).state == "running"
    workers.start()
    wait_until(lambda: len(workers.notes("begin")) == 2)
    (workers.folder / "release").touch()
    wait_until(lambda: ended_well(queue, job))
    done = queue.get(job.id)
    assert (done.attempts, done.failed_attempts, done.results) == (2, 1, results_of(done))
    assert [attempt for _, attempt, _ in workers.notes("end")] == [2]


@pytest.mark.requirement("R-JOBS")
def test_of_two_workers_one_is_killed_and_no_job_is_lost_and_none_ends_twice(queue: JobQueue, workers: Workers) -> None:
    jobs = [submit(queue, number, hold=number in (2, 3)) for number in range(20)]
    both = [workers.start(), workers.start()]
    wait_until(lambda: {job for job, _, _ in workers.notes("begin")} >= {jobs[2].id, jobs[3].id})
    holder = next(pid for job, _, pid in workers.notes("begin") if job == jobs[3].id)
    next(process for process in both if process.pid == holder).kill()
    (workers.folder / "release").touch()
    wait_until(lambda: all(ended_well(queue, job) for job in jobs))
    assert Counter(job for job, _, _ in workers.notes("end")) == Counter(job.id for job in jobs)
    assert Counter(queue.get(job.id).attempts for job in jobs) == {1: 19, 2: 1}
    assert len({pid for _, _, pid in workers.notes("begin")}) == 2


def test_a_worker_that_falls_silent_loses_its_job_and_cannot_end_it_later(queue: JobQueue, workers: Workers) -> None:
    job = submit(queue, hold=True)
    silent = workers.start()
    wait_until(lambda: queue.get(job.id).tiles_done == 4)
    silent.send_signal(signal.SIGSTOP)
    workers.start()
    wait_until(lambda: queue.get(job.id).attempts == 2)
    silent.send_signal(signal.SIGCONT)
    (workers.folder / "release").touch()
    wait_until(lambda: ended_well(queue, job))
    wait_until(lambda: "given to another" in workers.logs())
    assert queue.get(job.id).results == results_of(queue.get(job.id))
    assert queue.get(job.id).attempts == 2


def test_a_job_that_kills_its_workers_is_set_aside(queue: JobQueue, workers: Workers) -> None:
    poison, good = submit(queue, 0, poison=True), submit(queue, 1)
    for _ in range(3):
        killed = workers.start()
        assert killed.wait(30) == -signal.SIGKILL
    workers.start()
    wait_until(lambda: ended_well(queue, good))
    wait_until(lambda: queue.get(poison.id).state == "parked")
    parked = queue.get(poison.id)
    assert parked.failure is not None
    assert (parked.attempts, parked.failed_attempts, parked.failure.kind) == (3, 3, "worker-lost")


def test_a_worker_that_is_stopped_leaves_at_once_and_its_job_is_no_worse_for_it(
    queue: JobQueue, workers: Workers
) -> None:
    job = submit(queue, hold=True)
    first = workers.start()
    wait_until(lambda: queue.get(job.id).tiles_done == 4)
    first.terminate()
    assert first.wait(30) == 0
    assert (queue.get(job.id).state, queue.get(job.id).failed_attempts) == ("queued", 0)
    assert queue.stats().workers == 0
    (workers.folder / "release").touch()
    workers.start()
    wait_until(lambda: ended_well(queue, job))


def test_each_worker_has_its_own_number_of_slots(queue: JobQueue, workers: Workers) -> None:
    jobs = [submit(queue, number, hold=True) for number in range(4)]
    one, two = workers.start(slots=1), workers.start(slots=2)
    wait_until(lambda: len(workers.notes("begin")) == 3)
    assert Counter(pid for _, _, pid in workers.notes("begin")) == {one.pid: 1, two.pid: 2}
    assert queue.stats().slots == 3
    (workers.folder / "release").touch()
    wait_until(lambda: all(ended_well(queue, job) for job in jobs))


def test_the_database_goes_and_comes_back_and_nothing_is_lost(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database("outage")
    with closing(DbosJobQueue(url)) as queue, workers_on(url, tmp_path / "workers") as workers:
        running, waiting = submit(queue, 0, hold=True), submit(queue, 1)
        workers.start()
        wait_until(lambda: queue.get(running.id).tiles_done == 4)
        postgres.stop()
        with pytest.raises(OSError, match="the job database"):
            queue.get(running.id)
        with pytest.raises(OSError, match="the job database"):
            submit(queue, 2)
        (workers.folder / "release").touch()
        wait_until(lambda: len(workers.notes("end")) == 1)
        postgres.start()
        wait_until(lambda: ended_well(queue, running) and ended_well(queue, waiting), 60)
        assert [queue.get(job.id).attempts for job in (running, waiting)] == [1, 1]
        assert len(queue.list()) == 2


def test_a_worker_stop_on_signals_while_the_database_is_away_ends_at_once_and_says_so_in_few_lines(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database("stopped_without")
    with closing(DbosJobQueue(url)) as queue, workers_on(url, tmp_path / "workers") as workers:
        held, ending = submit(queue, 0, hold=True), submit(queue, 1)
        worker = workers.start(slots=2)
        wait_until(lambda: queue.get(held.id).tiles_done == 4 and ended_well(queue, ending))
        postgres.stop()
        try:
            wait_until(lambda: "goes on" in workers.logs())
            worker.terminate()
            assert worker.wait(15) == 0
        finally:
            postgres.start()
        assert len(workers.logs().splitlines()) < 20, workers.logs()
        (workers.folder / "release").touch()
        workers.start()
        wait_until(lambda: ended_well(queue, held))
        assert [job for job, _, _ in workers.notes("end")].count(ending.id) == 1


class TestPostgres(JobQueueContract):
    """The same promises as on SQLite."""

    @pytest.fixture
    def surroundings(self, postgres: Postgres, request: pytest.FixtureRequest) -> None:
        self.server, self.name, self.count = postgres, f"contract_{abs(hash(request.node.name)) % 10**9}", 0

    def make_queue(self, limits: QueueLimits) -> JobQueue:
        self.count += 1
        return DbosJobQueue(self.server.new_database(f"{self.name}_{self.count}"), limits)
