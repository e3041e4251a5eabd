"""A process's share of the work: DBOS hands jobs to it, and it watches over the other workers."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig
from dbos._dbos import _get_dbos_instance

from ...domain.errors import CancelledError
from ...domain.job import Job, finished, settled
from ...ports.job_queue import Handler
from .ledger import APPLICATION, QUEUE, VERSION, WORKFLOW, Ledger
from .place import is_gone, place
from .tables import place_errors, workers

T = TypeVar("T")
_log = logging.getLogger("voxport.jobs")
_PROGRESS_SECONDS = 0.25
_BEATS_A_LEASE = 6
_AGAIN_SECONDS = 0.5
_LOOKED_UP_AT_ONCE = 500

# DBOS knows one application a process, and its workflows by name.
_working: Worker | None = None
_taken = threading.Lock()


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
def _run_job(id: str, round: int) -> None:
    """One hand-over of a job. It has no steps: what must not be done twice is settled in the ledger."""
    if _working is not None:
        _working.run(id, round)


class Worker:
    """Runs jobs in this process until it is told to stop."""

    def __init__(
        self, ledger: Ledger, client: DBOSClient, url: str, handler: Handler, slots: int, stop: threading.Event
    ) -> None:
        self.id = str(uuid.uuid4())
        self._ledger, self._client, self._url, self._handler = ledger, client, url, handler
        self._slots, self._stop = slots, stop
        self._running = 0
        self._idle = threading.Condition()
        self._steady_since: float | None = None

    def work(self) -> None:
        """See JobQueue.work. RuntimeError if this process has a worker already."""
        global _working  # DBOS itself is one a process
        if not _taken.acquire(blocking=False):
            raise RuntimeError("this process runs jobs already")
        try:
            _working = self
            beating = threading.Thread(target=self._watch, name="voxport-jobs-watch", daemon=True)
            self._patiently(self._beat)
            dbos = self._launch()
            beating.start()
            self._stop.wait()
            with self._idle:
                self._idle.wait_for(lambda: self._running == 0)
            beating.join()
            dbos.destroy(workflow_completion_timeout_sec=0)
            self._leave()
        finally:
            _working = None
            _taken.release()

    def run(self, id: str, round: int) -> None:
        """Take up a job and see it through to an end, or back into the queue."""
        with self._idle:
            self._running += 1
        try:
            if self._stop.is_set():
                self._ledger.hand_out_again(id, round)
                return
            job = self._patiently(lambda: self._ledger.begin(id, round, self.id))
            if job is not None:
                self._do(job)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _do(self, job: Job) -> None:
        change: Callable[[Job, float], Job]
        delayed = False
        try:
            results = self._handler(_DbosAttempt(job, self._ledger, self._stop))
            change = lambda job, now: finished(job, now, results)  # noqa: E731
        except Exception as caught:  # noqa: BLE001 - whatever a handler raises is the job's, not the worker's
            error = caught  # the name in the except clause is gone when the change is applied
            _log.info("job %s, attempt %d", job.id, job.attempts, exc_info=error)
            strikes = self._ledger.limits.strikes
            change = lambda job, now: settled(job, now, error, strikes_allowed=strikes)  # noqa: E731
            delayed = not isinstance(error, CancelledError)
        settle = lambda: self._ledger.settle(job.id, job.attempts, change, delayed=delayed)  # noqa: E731
        if self._patiently(settle) is None:
            _log.warning("job %s: attempt %d ended after it had been given to another", job.id, job.attempts)

    def _patiently(self, do: Callable[[], T]) -> T:
        """Do it, again and again while the database is away; raises its OSError once the worker is to stop."""
        while True:
            try:
                return do()
            except OSError as error:
                if self._stop.is_set():
                    raise
                _log.warning("%s; trying again", error)
                self._stop.wait(_AGAIN_SECONDS)

    def _launch(self) -> type[DBOS]:
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._url,
            "executor_id": self.id,  # never used again, so DBOS recovers nothing by itself: that is up to the leases
            "application_version": VERSION,
            "use_listen_notify": False,
            "enable_otlp": False,
            "log_level": "WARNING",
        }
        DBOS(config=config)
        DBOS.listen_queues([QUEUE])
        DBOS.launch()
        _limit_here(self._slots)
        return DBOS

    def _watch(self) -> None:
        """Show that this worker is alive, and take over from those that are not."""
        between = self._ledger.limits.lease_seconds / _BEATS_A_LEASE
        looked = 0.0
        while not self._stop.wait(between):
            try:
                gone = self._beat()
                for worker in gone:
                    self._take_over(worker)
                if gone or time.monotonic() - looked > self._ledger.limits.lease_seconds:
                    looked = time.monotonic()
                    self._find_stranded()
            except OSError as error:
                self._steady_since = None
                _log.warning("%s; trying again", error)
            except Exception:  # noqa: BLE001 - without it nobody would be taken over from any more
                _log.exception("the watch over other workers goes on")

    def _beat(self) -> list[str]:
        """Be seen, and see who is gone.

        After the database was away every worker looks dead to the first that finds it again. So nobody is given up
        for silence before this worker has itself been heard for as long.
        """
        database, lease = self._ledger.database, self._ledger.limits.lease_seconds
        with database.writing() as connection:
            now = database.now(connection)
            values = {"place": place(), "pid": os.getpid(), "slots": self._slots, "beat": now}
            if not connection.execute(workers.update().where(workers.c.id == self.id).values(values)).rowcount:
                connection.execute(workers.insert().values(id=self.id, **values))
            others = connection.execute(sa.select(workers).where(workers.c.id != self.id)).all()
        self._steady_since = self._steady_since or time.monotonic()
        steady = time.monotonic() - self._steady_since > lease
        return [o.id for o in others if is_gone(o.place, o.pid) or (steady and o.beat < now - lease)]

    def _take_over(self, worker: str) -> None:
        taken = self._ledger.take_from(worker)
        _log.warning("worker %s is gone; its %d jobs go on elsewhere", worker, len(taken))

    def _find_stranded(self) -> None:
        """Hand out again what waits here but not in DBOS: a worker died, or lost the database, as it took it up."""
        alive, waiting = self._ledger.alive(), self._ledger.waiting()
        for at in range(0, len(waiting), _LOOKED_UP_AT_ONCE):
            some = {f"{id}.{round}": (id, round) for id, round in waiting[at : at + _LOOKED_UP_AT_ONCE]}
            with place_errors():
                found = self._client.list_workflows(workflow_ids=list(some), load_input=False, load_output=False)
            for workflow in found:
                held = workflow.status == "PENDING" and workflow.executor_id in alive
                if held or workflow.status in ("ENQUEUED", "DELAYED"):
                    del some[workflow.workflow_id]
            for id, round in some.values():
                self._ledger.hand_out_again(id, round)

    def _leave(self) -> None:
        try:
            self._ledger.take_from(self.id)
            self._find_stranded()
        except OSError as error:
            _log.warning("%s; others will find out that this worker is gone", error)


class _DbosAttempt:
    """One run of a job: progress is written a few times a second, a request to stop is seen at each report."""

    def __init__(self, job: Job, ledger: Ledger, stop: threading.Event) -> None:
        self.job = job
        self._ledger, self._stop = ledger, stop
        self._written = 0.0

    def report(self, done: int, total: int) -> None:
        """See Attempt.report."""
        due = time.monotonic() - self._written > _PROGRESS_SECONDS or 0 < done == total
        if due:
            self._written = time.monotonic()
        try:
            wanted = self._ledger.progress(self.job.id, self.job.attempts, (done, total) if due else None)
        except OSError as error:
            _log.warning("%s; the run goes on", error)
            wanted = True
        if self._stop.is_set() or not wanted:
            raise CancelledError


def _limit_here(slots: int) -> None:
    """Run at most so many jobs at a time in this process.

    DBOS keeps a queue's limit for each worker in the shared database, one figure for all of them; machines differ.
    Until this is in force that figure counts, which is 1.
    """
    system: Any = _get_dbos_instance()._sys_db
    shared = system.get_queue

    def get_queue(name: str, **options: Any) -> Any:
        queue = shared(name, **options)
        if queue is not None and name == QUEUE:
            queue._worker_concurrency = slots
        return queue

    system.get_queue = get_queue
