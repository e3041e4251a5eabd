"""A `JobQueue` in memory, for tests and for jobs that may end with the process."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..domain.errors import BusyError, CancelledError
from ..domain.job import (
    ENDED,
    JOB_STATES,
    Job,
    JobCase,
    JobState,
    asked_to_cancel,
    begun,
    finished,
    key_taken,
    median_seconds,
    not_ended,
    results_mapping,
    settled,
    tried_again,
    unknown_job,
    wait_seconds,
)
from ..ports.job_queue import Handler, QueueLimits, QueueStats

_log = logging.getLogger("voxport.jobs")
_GLANCE_SECONDS = 0.02


@dataclass
class _Row:
    job: Job
    key: str | None
    rank: tuple[int, int]
    not_before: float = 0.0


class MemoryJobQueue:
    """Stores jobs in a dictionary; workers are threads of this process."""

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self._limits = limits or QueueLimits()
        self._rows: dict[str, _Row] = {}
        self._lock = threading.RLock()
        self._queued = 0
        self._workers: list[int] = []
        self._ended: Counter[JobState] = Counter()

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        with self._lock:
            for row in self._rows.values():
                if key is not None and (row.job.owner, row.key) == (owner, key):
                    if not row.job.case.same_work(case):
                        raise key_taken(key)
                    return self.get(row.job.id)
            waiting = sum(row.job.state == "queued" for row in self._rows.values())
            if waiting >= self._limits.length:
                expected = f"at most {self._limits.length} jobs that wait"
                raise BusyError("queue", expected=expected, got="one more", retry_after_seconds=self._typical() or 1.0)
            job = Job(str(uuid.uuid4()), owner, case, time.time())
            self._rows[job.id] = _Row(job, key, self._next_rank())
            return self.get(job.id)

    def get(self, id: str, owner: str | None = None) -> Job:
        with self._lock:
            row = self._row(id, owner)
            if row.job.state != "queued":
                return row.job
            ahead = sum(r.job.state == "queued" and r.rank < row.rank for r in self._rows.values())
            return replace(row.job, position=ahead)

    def list(
        self,
        owner: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 100,
        *,
        ended_before: float | None = None,
    ) -> tuple[Job, ...]:
        with self._lock:
            found = [
                row.job.id
                for row in self._rows.values()
                if owner in (None, row.job.owner)
                and (states is None or row.job.state in states)
                and (ended_before is None or (row.job.ended is not None and row.job.ended < ended_before))
            ]
            return tuple(self.get(id) for id in found[::-1][:limit])

    def cancel(self, id: str, owner: str | None = None) -> Job:
        return self._change(id, owner, lambda job: asked_to_cancel(job, time.time()))

    def retry(self, id: str, owner: str | None = None) -> Job:
        with self._lock:
            self._change(id, owner, tried_again)
            self._rows[id].rank = self._next_rank()
            return self.get(id)

    def forget(self, id: str, owner: str | None = None) -> None:
        with self._lock:
            row = self._row(id, owner)
            if not row.job.has_ended:
                raise not_ended(row.job)
            del self._rows[id]

    def stats(self) -> QueueStats:
        with self._lock:
            jobs = [row.job for row in self._rows.values()]
            counted = Counter(job.state for job in jobs)
            waited = [time.time() - job.submitted for job in jobs if job.state == "queued"]
            counts = {state: counted[state] for state in JOB_STATES}
            oldest, ended = max((0.0, *waited)), {state: self._ended[state] for state in ENDED}
            return QueueStats(counts, oldest, self._typical(), len(self._workers), sum(self._workers), ended)

    def work(self, handler: Handler, concurrency: int, stop: threading.Event) -> None:
        with self._lock:
            self._workers.append(concurrency)
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(lambda _: self._serve(handler, stop), range(concurrency)))
        with self._lock:
            self._workers.remove(concurrency)

    def close(self) -> None:
        """Nothing is held."""

    def _serve(self, handler: Handler, stop: threading.Event) -> None:
        while not stop.is_set():
            job = self._take()
            if job is None:
                stop.wait(_GLANCE_SECONDS)
            else:
                self._run(job, handler, stop)

    def _take(self) -> Job | None:
        with self._lock:
            ready = [r for r in self._rows.values() if r.job.state == "queued" and r.not_before <= time.monotonic()]
            row = min(ready, key=lambda r: r.rank, default=None)
            if row is None:
                return None
            row.job = begun(row.job, time.time())
            return row.job

    def _run(self, job: Job, handler: Handler, stop: threading.Event) -> None:
        try:
            results = dict(handler(_MemoryAttempt(job, self, stop)))
            results_mapping(results)  # raises here for results that cannot be stored
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is the job's, not the worker's
            _log.info("job %s, attempt %d", job.id, job.attempts, exc_info=error)
            self._settle(job, error)
        else:
            self._change(job.id, None, lambda now: finished(now, time.time(), results))

    def _settle(self, job: Job, error: BaseException) -> None:
        with self._lock:
            allowed = self._limits.failed_attempts
            self._change(job.id, None, lambda job: settled(job, time.time(), error, attempts_allowed=allowed))
            row = self._row(job.id, None)
            if isinstance(error, CancelledError):
                row.rank = (0, row.rank[1])
            else:
                row.rank = self._next_rank()
                row.not_before = time.monotonic() + wait_seconds(job.attempts, self._limits.backoff_seconds)

    def _change(self, id: str, owner: str | None, change: Callable[[Job], Job]) -> Job:
        with self._lock:
            row = self._row(id, owner)
            before, row.job = row.job, change(row.job)
            if row.job.has_ended and not before.has_ended:
                self._ended[row.job.state] += 1
            return self.get(id)

    def _row(self, id: str, owner: str | None) -> _Row:
        row = self._rows.get(id)
        if row is None or owner not in (None, row.job.owner):
            raise unknown_job(id)
        return row

    def _next_rank(self) -> tuple[int, int]:
        self._queued += 1
        return 1, self._queued

    def _typical(self) -> float | None:
        done = (row.job for row in self._rows.values() if row.job.state == "done")
        return median_seconds((job.started, job.ended) for job in done)


class _MemoryAttempt:
    def __init__(self, job: Job, queue: MemoryJobQueue, stop: threading.Event) -> None:
        self.job = job
        self._queue, self._stop = queue, stop

    def report(self, done: int, total: int) -> None:
        seen = self._queue._change(self.job.id, None, lambda job: replace(job, tiles_done=done, tiles_total=total))
        if seen.cancelling or self._stop.is_set():
            raise CancelledError
