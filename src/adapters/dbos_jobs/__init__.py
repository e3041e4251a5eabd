"""A queue of jobs on DBOS: an SQLite file on one machine, a Postgres database for many."""

from __future__ import annotations

import threading
from collections.abc import Collection

import sqlalchemy as sa
from dbos import DBOS, DBOSClient

from ...domain.job import Job, JobCase, JobState, asked_to_cancel, tried_again
from ...ports.job_queue import Handler, QueueLimits, QueueStats
from .ledger import APPLICATION, QUEUE, Ledger
from .tables import Database
from .worker import Worker

_POLLING_SECONDS = 0.2


class DbosJobQueue:
    """JobQueue in a database, by URL: ``sqlite:////folder/jobs.sqlite`` or ``postgresql://user@host/name``.

    DBOS keeps the line and hands each job to one worker; a ledger beside it, in the same transactions, keeps whose job
    it is, how far it is and how it ended. A run is only ever settled by the worker that the ledger says holds it.
    """

    def __init__(self, url: str, limits: QueueLimits | None = None) -> None:
        self._url = url
        database = Database(url)
        try:
            DBOS.migrate(url)
            database.create_tables()
            self._client = DBOSClient(
                system_database_url=url, application_name=APPLICATION, retry_connection_errors=False
            )
            self._client.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=_POLLING_SECONDS)
        except sa.exc.DBAPIError as error:
            database.close()
            raise ConnectionError(f"the job database: {str(error).splitlines()[0]}") from error
        self._ledger = Ledger(database, self._client, limits or QueueLimits())

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        """See JobQueue.submit."""
        return self._ledger.insert(case, owner, key)

    def get(self, id: str, owner: str | None = None) -> Job:
        """See JobQueue.get."""
        return self._ledger.get(id, owner)

    def list(
        self, owner: str | None = None, states: Collection[JobState] | None = None, limit: int = 100
    ) -> tuple[Job, ...]:
        """See JobQueue.list."""
        return self._ledger.list(owner, states, limit)

    def cancel(self, id: str, owner: str | None = None) -> Job:
        """See JobQueue.cancel."""
        return self._ledger.change(id, owner, asked_to_cancel)

    def retry(self, id: str, owner: str | None = None) -> Job:
        """See JobQueue.retry."""
        return self._ledger.change(id, owner, lambda job, now: tried_again(job))  # noqa: ARG005

    def forget(self, id: str, owner: str | None = None) -> None:
        """See JobQueue.forget."""
        self._ledger.delete(id, owner)

    def stats(self) -> QueueStats:
        """See JobQueue.stats."""
        return self._ledger.stats()

    def work(self, handler: Handler, concurrency: int, stop: threading.Event) -> None:
        """See JobQueue.work. One call at a time in a process, as DBOS is one a process."""
        Worker(self._ledger, self._client, self._url, handler, concurrency, stop).work()

    def close(self) -> None:
        """See JobQueue.close."""
        self._client.destroy()
        self._ledger.database.close()
