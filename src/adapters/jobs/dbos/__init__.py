"""A queue of jobs on DBOS: an SQLite file on one machine, a Postgres database for many."""

from __future__ import annotations

import threading

from ....domain.job import Job, JobCase
from ....ports.job_queue import Handler, JobQueue, QueueLimits

from .library import Pace, limit_logging  # isort: skip - before the others import dbos
from .database import Database
from .ledger import Ledger
from .worker import Worker


class DbosJobQueue(Ledger, JobQueue):
    """`JobQueue` in a database, by URL: ``sqlite:////folder/jobs.sqlite`` or ``postgresql://user@host/name``.

    DBOS orders jobs and gives each to one worker. A ledger, in the same transactions, keeps each job's owner, progress
    and end. Only the worker that holds a run in the ledger settles it.

    The first use connects and creates missing tables. While the database is away, each call raises ConnectionError
    within seconds. With ``create`` false, a database without tables counts as away.

    Raises:
        UsageError: the URL names no database that can keep jobs.
    """

    def __init__(self, url: str, limits: QueueLimits | None = None, *, create: bool = True) -> None:
        limit_logging()
        super().__init__(Database(url, create=create), limits or QueueLimits())
        self._pace = Pace()

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        job = super().submit(case, owner, key=key)
        self._pace.look_now()
        return job

    def retry(self, id: str, owner: str | None = None) -> Job:
        job = super().retry(id, owner)
        self._pace.look_now()
        return job

    def work(self, handler: Handler, concurrency: int, stop: threading.Event) -> None:
        """See JobQueue.work. One call at a time in a process, which has one DBOS."""
        Worker(self, self._pace, handler, concurrency, stop).work()

    def close(self) -> None:
        self.database.close()
