"""Hundreds of jobs leave no thread, no open file, no connection and no row behind."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.ports.job_queue import Attempt, Results
from voxport.testing.job_queue import example_case, results_of, wait_until, working

from .processes import Postgres

# of DBOS and ours: what is there once for all jobs
_ALWAYS = {"dbos_migrations", "application_versions", "queues", "voxport_job_ends"}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database("leaks")


def work_off(url: str, count: int) -> None:
    """So many jobs, submitted, done and deleted, some of them cancelled and tried again before."""

    def handler(attempt: Attempt) -> Results:
        return results_of(attempt.job)

    with closing(DbosJobQueue(url)) as queue:
        jobs = [queue.submit(example_case(number), "ada") for number in range(count)]
        for job in jobs[::10]:
            queue.cancel(job.id)
            queue.retry(job.id)
        with working(queue, handler, concurrency=4):
            wait_until(lambda: queue.stats().counts["done"] == count, 120)
            for job in jobs:
                queue.forget(job.id)
        assert queue.list() == ()


def left_in(url: str) -> dict[str, int]:
    """Rows of all tables that have any."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    inspector = sa.inspect(engine)
    schemas = [None] if url.startswith("sqlite") else ["dbos", "public"]
    tables = [sa.table(name, schema=schema) for schema in schemas for name in inspector.get_table_names(schema)]
    with engine.connect() as connection:
        rows = {t.name: connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one() for t in tables}
    engine.dispose()
    return {name: count for name, count in rows.items() if count}


def test_hundreds_of_jobs_leave_nothing_behind(url: str) -> None:
    process = psutil.Process()
    work_off(url, 1)  # what is loaded and kept once
    threads, files = threading.active_count(), process.num_fds()
    work_off(url, 500 if url.startswith("sqlite") else 150)
    wait_until(lambda: threading.active_count() <= threads)  # a connection's or a pool's last breath
    assert process.num_fds() <= files
    assert set(left_in(url)) == _ALWAYS
