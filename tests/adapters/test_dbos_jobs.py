"""DbosJobQueue keeps the JobQueue contract on SQLite, and what DBOS lost sight of is handed out again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from dbos import DBOSClient
from voxport.adapters.dbos_jobs import DbosJobQueue
from voxport.adapters.dbos_jobs.place import is_gone, place
from voxport.ports.job_queue import JobQueue, QueueLimits
from voxport.testing.job_queue import JobQueueContract, example_case, run_to_the_end, wait_until, working


class TestSqlite(JobQueueContract):
    @pytest.fixture
    def surroundings(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.count = 0

    def make_queue(self, limits: QueueLimits) -> JobQueue:
        self.count += 1
        return DbosJobQueue(f"sqlite:///{self.folder}/jobs-{self.count}.sqlite", limits)


def test_a_job_that_waits_here_but_not_in_dbos_is_handed_out_again(tmp_path: Path) -> None:
    """As when a worker dies, or loses the database, between taking it from DBOS and taking it up."""
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    with closing(DbosJobQueue(url, QueueLimits(lease_seconds=1.0))) as queue:
        lost, other = (queue.submit(example_case(number), "ada") for number in range(2))
        client = DBOSClient(system_database_url=url)
        client.cancel_workflow(f"{lost.id}.0")
        client.destroy()
        with working(queue, run_to_the_end):
            wait_until(lambda: queue.get(other.id).state == "done")
            wait_until(lambda: queue.get(lost.id).state == "done")
        assert queue.get(lost.id).attempts == 1


def test_a_process_runs_jobs_once(tmp_path: Path) -> None:
    with (
        closing(DbosJobQueue(f"sqlite:///{tmp_path}/jobs.sqlite")) as queue,
        working(queue, run_to_the_end),
    ):
        wait_until(lambda: queue.stats().workers == 1)
        with pytest.raises(RuntimeError, match="already"):
            queue.work(run_to_the_end, 1, threading.Event())


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/jobs.sqlite", "postgresql://nobody@127.0.0.1:1/jobs"])
def test_a_database_that_cannot_be_reached_is_an_os_error(url: str) -> None:
    with pytest.raises(OSError, match="the job database"):
        DbosJobQueue(url)


def test_a_process_that_is_not_seen_from_here_is_not_taken_for_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert is_gone(place(), ended.pid)
    assert not is_gone("another machine", ended.pid)
    assert not is_gone(place(), os.getpid())
