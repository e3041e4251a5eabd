"""The queue itself, on its adapter's parts."""

from __future__ import annotations

import threading
from collections.abc import Collection

from dbos import DBOSClient

from ....domain.job import Job, JobCase, JobState, asked_to_cancel, tried_again
from ....ports.job_queue import Handler, QueueLimits, QueueStats
from .database import Database
from .ledger import APPLICATION, Ledger
from .opening import Opening
from .plain import PlainSerializer
from .worker import Worker


class DbosJobQueue:
    """JobQueue in a database, by URL: ``sqlite:////folder/jobs.sqlite`` or ``postgresql://user@host/name``.

    DBOS keeps the line and hands each job to one worker; a ledger beside it, in the same transactions, keeps whose job
    it is, how far it is and how it ended. A run is only ever settled by the worker that the ledger says holds it.

    The database is reached, and made ready, when the queue is first used. Where it is away, each call says so within
    seconds, and the next one tries again. Where it is not to ``create`` a database, one that is missing is away.

    Raises:
        UsageError: the URL is of no database that keeps jobs.
    """

    def __init__(self, url: str, limits: QueueLimits | None = None, *, create: bool = True) -> None:
        self._database = Database(url)
        self._client = DBOSClient(
            system_database_url=self._database.url,
            system_database_engine=self._database.engine,
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
            serializer=PlainSerializer(),
        )
        self._ledger = Ledger(self._database, self._client, limits or QueueLimits())
        self._opening = Opening(self._database, self._client, create=create)
        self._worker: Worker | None = None

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        """See JobQueue.submit."""
        job = self._opened().insert(case, owner, key)
        self._look()
        return job

    def get(self, id: str, owner: str | None = None) -> Job:
        """See JobQueue.get."""
        return self._opened().get(id, owner)

    def list(
        self,
        owner: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 100,
        *,
        ended_before: float | None = None,
    ) -> tuple[Job, ...]:
        """See JobQueue.list."""
        return self._opened().list(owner, states, limit, ended_before)

    def cancel(self, id: str, owner: str | None = None) -> Job:
        """See JobQueue.cancel."""
        return self._opened().change(id, owner, asked_to_cancel)

    def retry(self, id: str, owner: str | None = None) -> Job:
        """See JobQueue.retry."""
        job = self._opened().change(id, owner, lambda job, now: tried_again(job))  # noqa: ARG005
        self._look()
        return job

    def forget(self, id: str, owner: str | None = None) -> None:
        """See JobQueue.forget."""
        self._opened().delete(id, owner)

    def stats(self) -> QueueStats:
        """See JobQueue.stats."""
        return self._opened().stats()

    def work(self, handler: Handler, concurrency: int, stop: threading.Event) -> None:
        """See JobQueue.work. One call at a time in a process, as DBOS is one a process."""
        worker = Worker(self._ledger, self._client, self._opening, handler, concurrency, stop)
        try:
            self._worker = worker
            worker.work()
        finally:
            self._worker = None

    def close(self) -> None:
        """See JobQueue.close."""
        self._client.destroy()
        self._database.close()

    def _opened(self) -> Ledger:
        self._opening.ensure()
        return self._ledger

    def _look(self) -> None:
        """A worker of this process need not find out by itself that there is something to do."""
        if (worker := self._worker) is not None:
            worker.pace.look_now()
