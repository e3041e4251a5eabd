"""A worker process, which runs the jobs that DBOS gives it."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig

from ....domain.errors import CancelledError, VoxportError
from ....domain.job import Job, finished, results_mapping, settled
from ....ports.job_queue import Handler
from .database import away
from .ledger import Ledger
from .library import APPLICATION, QUEUE, VERSION, WORKFLOW, JsonSerializer, Pace, set_up_here
from .watch import Watch

T = TypeVar("T")
_log = logging.getLogger("voxport.jobs")
_PROGRESS_SECONDS = 0.25
_AGAIN_SECONDS = 0.5

# DBOS has one application a process, and finds workflows by name.
_working: Worker | None = None
_taken = threading.Lock()


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
def _run_job(id: str, round: int) -> None:
    # no steps of DBOS: the ledger settles what must not happen twice
    if _working is not None:
        _working.run(id, round)


class Worker:
    """Runs jobs in this process until ``stop`` is set."""

    def __init__(self, ledger: Ledger, pace: Pace, handler: Handler, slots: int, stop: threading.Event) -> None:
        self.id = str(uuid.uuid4())  # new each time, so that leases recover jobs, not DBOS
        self._ledger, self._pace, self._handler, self._slots, self._stop = ledger, pace, handler, slots, stop
        self._watch = Watch(ledger, self.id, slots, lambda: self._doing)
        self._doing: frozenset[str] = frozenset()
        self._change = threading.Condition()

    def work(self) -> None:
        """See JobQueue.work. Raises RuntimeError if this process already has a worker."""
        global _working  # as DBOS has one application a process
        if not _taken.acquire(blocking=False):
            raise RuntimeError("this process runs jobs already")
        try:
            _working = self
            self._patiently(self._begin)
            self._until_stopped()
        except OSError as error:  # stopped while the database was away
            _log.warning("%s; other workers will notice that this one is gone", error)
        finally:
            DBOS.destroy()
            _working = None
            _taken.release()

    def run(self, id: str, round: int) -> None:
        """Run a job until it ends or goes back into the queue."""
        name = f"{id}.{round}"
        with self._change:
            self._doing |= {name}
        try:
            if self._stop.is_set():
                self._ledger.hand_out_again(id, round)
                return
            job = self._patiently(lambda: self._ledger.begin(id, round, self.id))
            if job is not None:
                _log.info("job %s: attempt %d begun", id, job.attempts, extra=_fields(job, "begun"))
                self._do(job)
        except OSError as error:  # stopped while the database is away
            _log.warning("%s; job %s is left to other workers", error, id)
        finally:
            with self._change:
                self._doing -= {name}
                self._change.notify_all()
            self._pace.look_now()

    def _begin(self) -> None:
        self._watch.beat()
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._ledger.database.url,
            "system_database_engine": self._ledger.database.engine,
            "executor_id": self.id,
            "application_version": VERSION,
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": 0.1,  # an idle thread, which is joined at the end
            "enable_otlp": False,
            "log_level": "WARNING",
            "serializer": JsonSerializer(),
        }
        DBOS(config=config)
        try:
            DBOS.listen_queues([QUEUE])
            DBOS.launch()
            set_up_here(QUEUE, self._slots, self._pace)
        except BaseException as error:
            DBOS.destroy()  # a DBOS that failed to launch cannot be launched again
            if isinstance(error, sa.exc.SQLAlchemyError):
                raise away(error) from error
            raise

    def _until_stopped(self) -> None:
        watching = threading.Thread(target=self._watch.keep, args=(self._stop,), name="voxport-jobs-watch", daemon=True)
        watching.start()
        self._stop.wait()
        with self._change:
            self._change.wait_for(lambda: not self._doing)
        watching.join()
        self._pace.look_now()  # wakes DBOS's thread, which then ends
        DBOS.destroy(workflow_completion_timeout_sec=0)
        self._watch.leave()

    def _do(self, job: Job) -> None:
        change: Callable[[Job, float], Job]
        delayed = False
        try:
            results = dict(self._handler(_DbosAttempt(job, self._ledger, self._stop)))
            results_mapping(results)  # raises here for results that cannot be stored
            change = partial(finished, results=results)
        except BaseException as error:  # noqa: BLE001 - the job fails, not the worker
            if not isinstance(error, VoxportError | OSError):  # the job's owner sees only its type
                _log.error("job %s, attempt %d", job.id, job.attempts, exc_info=error, extra=_fields(job, "error"))
            change = partial(settled, error=error, attempts_allowed=self._ledger.limits.failed_attempts)
            delayed = not isinstance(error, CancelledError)
        ended = self._patiently(partial(self._ledger.settle, job.id, job.attempts, change, delayed=delayed))
        if ended is None:
            _log.warning("job %s: attempt %d ended after it had been given to another", job.id, job.attempts)
        else:
            _log_end(ended)

    def _patiently(self, do: Callable[[], T]) -> T:
        """Repeat ``do`` while the database is away. Raises its OSError once ``stop`` is set."""
        was_away = False
        while True:
            try:
                return do()
            except OSError as error:
                if self._stop.is_set():
                    raise
                if not was_away:
                    _log.warning("%s; trying again until it is back", error)
                was_away = True
                self._stop.wait(_AGAIN_SECONDS)


def _log_end(job: Job) -> None:
    level = {"failed": logging.WARNING, "parked": logging.ERROR}.get(job.state, logging.INFO)
    ends = {"done": "done", "failed": "failed", "cancelled": "cancelled", "parked": "dead-lettered"}
    tried_again = "tried again later" if job.failure else "queued again, as the worker stops"
    # a file's name may contain line breaks, or bytes that are not text
    reason = "".join(c if c.isprintable() else "?" for c in f": {job.failure.detail}") if job.failure else ""
    text = f"attempt {job.attempts} {ends.get(job.state, tried_again)}{reason}"
    _log.log(level, "job %s: %s", job.id, text, extra=_fields(job, ends.get(job.state, "queued")))


def _fields(job: Job, event: str) -> dict[str, dict[str, object]]:
    named = {"job": job.id, "event": event, "attempt": job.attempts, "owner": job.owner, "model": job.case.model}
    return {"fields": named | ({"problem": job.failure.kind} if job.failure else {})}


class _DbosAttempt:
    """`Attempt` that writes progress a few times a second; each report checks for a request to stop."""

    def __init__(self, job: Job, ledger: Ledger, stop: threading.Event) -> None:
        self.job = job
        self._ledger, self._stop = ledger, stop
        self._written, self._tiles = 0.0, (0, 0)
        self._is_away = False

    def report(self, done: int, total: int) -> None:
        due = time.monotonic() - self._written > _PROGRESS_SECONDS or 0 < done == total
        tiles = (done, total) if due and (done, total) != self._tiles else None
        if self._stop.is_set() or not self._goes_on(tiles):
            raise CancelledError

    def _goes_on(self, tiles: tuple[int, int] | None) -> bool:
        """Write the tiles, if any; return whether the run should continue, as it does while the database is away."""
        try:
            wanted = self._ledger.progress(self.job.id, self.job.attempts, tiles)
        except OSError as error:
            if not self._is_away:
                _log.warning("%s; the run of job %s goes on", error, self.job.id)
            self._is_away = True
            return True
        self._is_away = False
        if tiles is not None:
            self._written, self._tiles = time.monotonic(), tiles
        return wanted
