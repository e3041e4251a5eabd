"""DbosJobQueue, which prepares its database at the first use."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, error

from ....domain.job import Job, JobCase, JobState, asked_to_cancel, tried_again
from ....ports.job_queue import Handler, JobQueue, QueueLimits, QueueStats
from .database import Database, away
from .ledger import APPLICATION, QUEUE, Ledger
from .library import LOOK_SECONDS, JsonSerializer, limit_logging
from .worker import Worker


class DbosJobQueue(JobQueue):
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
        self._database = Database(url)
        self._client = DBOSClient(
            system_database_url=self._database.url,
            system_database_engine=self._database.engine,
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
            serializer=JsonSerializer(),
        )
        self._ledger = Ledger(self._database, self._client, limits or QueueLimits())
        self._create, self._is_open, self._opening = create, False, threading.Lock()
        self._failure, self._failed_at = "", 0.0
        self._worker: Worker | None = None

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        job = self._opened().insert(case, owner, key)
        self._look()
        return job

    def get(self, id: str, owner: str | None = None) -> Job:
        return self._opened().get(id, owner)

    def list(
        self,
        owner: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 100,
        *,
        ended_before: float | None = None,
    ) -> tuple[Job, ...]:
        return self._opened().list(owner, states, limit, ended_before)

    def cancel(self, id: str, owner: str | None = None) -> Job:
        return self._opened().change(id, owner, asked_to_cancel)

    def retry(self, id: str, owner: str | None = None) -> Job:
        job = self._opened().change(id, owner, lambda job, now: tried_again(job))  # noqa: ARG005
        self._look()
        return job

    def forget(self, id: str, owner: str | None = None) -> None:
        self._opened().delete(id, owner)

    def stats(self) -> QueueStats:
        return self._opened().stats()

    def work(self, handler: Handler, concurrency: int, stop: threading.Event) -> None:
        """See JobQueue.work. One call at a time in a process, which has one DBOS."""
        worker = Worker(self._ledger, self._client, self._ensure, handler, concurrency, stop)
        try:
            self._worker = worker
            worker.work()
        finally:
            self._worker = None

    def close(self) -> None:
        self._client.destroy()
        self._database.engine.dispose()

    def _opened(self) -> Ledger:
        self._ensure()
        return self._ledger

    def _look(self) -> None:
        if (worker := self._worker) is not None:
            worker.pace.look_now()

    def _ensure(self) -> None:
        """Create the tables and the queue once. Raises ConnectionError within seconds where the database is away."""
        if self._is_open:
            return
        asked = time.monotonic()
        with self._opening:
            if self._is_open:
                return
            if self._failed_at > asked:  # tried while this caller waited
                raise ConnectionError(self._failure)
            try:
                self._open()
            except ConnectionError as failure:
                self._failure, self._failed_at = str(failure), time.monotonic()
                raise
            self._is_open = True

    def _open(self) -> None:
        if not self._create:
            self._database.check_tables()
            return
        self._database.create_place()
        self._probe()
        try:
            DBOS.migrate(self._database.url)
            self._database.create_tables()
            self._client.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=LOOK_SECONDS)
        except (sa.exc.SQLAlchemyError, error.DBOSException) as failure:  # e.g. no right to create tables
            raise away(failure) from failure

    def _probe(self) -> None:
        # DBOS would wait longer for a lost database; it creates a missing Postgres database
        try:
            with self._database.writing():
                pass
        except ConnectionError as failure:
            if self._database.is_sqlite or "does not exist" not in str(failure):
                raise
