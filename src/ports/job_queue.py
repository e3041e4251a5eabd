"""A durable queue of jobs, shared by all workers and services."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from ..domain.job import Job, JobCase, JobState, StoredFile

Results = Mapping[str, StoredFile]


class Attempt(Protocol):
    """One run of a job, as its handler sees it."""

    @property
    def job(self) -> Job:
        """The job at the start of this run; ``job.attempts`` is the run's number."""

    def report(self, done: int, total: int) -> None:
        """Report finished tiles. Raises CancelledError if the job was cancelled, or the worker stops or lost it."""


# Runs a job and returns its stored results. ``domain.job.settled`` decides what follows an exception.
Handler = Callable[[Attempt], Results]


@dataclass(frozen=True)
class QueueStats:
    """Jobs in each state, the wait of the oldest queued one, and the median time of a job.

    ``typical_seconds`` is None where no job is done yet. ``ended`` counts all jobs that ever ended in a state, deleted
    ones too. ``workers`` processes run jobs now, ``slots`` jobs at a time all together.
    """

    counts: Mapping[JobState, int]
    oldest_queued_seconds: float
    typical_seconds: float | None
    workers: int
    slots: int
    ended: Mapping[JobState, int]


@dataclass(frozen=True)
class QueueLimits:
    """Limits of a queue.

    Args:
        length: jobs that may be queued at a time.
        failed_attempts: runs that end without an explanation, or lose their worker, until a job is dead-lettered.
        lease_seconds: silence of a worker after which its jobs go to others.
        backoff_seconds: wait before the second run of a job; it doubles with each run.
    """

    length: int = 1000
    failed_attempts: int = 3
    lease_seconds: float = 15.0
    backoff_seconds: float = 2.0


class JobQueue(Protocol):
    """A queue of jobs; first come, first served. Safe for several threads.

    With ``owner``, jobs of other owners are not found; operators leave it out. Where the place that keeps the queue
    fails, OSError is raised and nothing has changed.
    """

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        """Queue a case; once this returns, the job is not lost.

        ``key`` names the request: the same key of the same owner gives the job that it made the first time.

        Raises:
            BusyError: the queue is full.
            UsageError: the key was used for another case.
        """

    def get(self, id: str, owner: str | None = None) -> Job:
        """A job. Raises UnknownJobError."""

    def list(
        self,
        owner: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 100,
        *,
        ended_before: float | None = None,
    ) -> tuple[Job, ...]:
        """Jobs, the latest submitted first; with ``ended_before``, those that ended before that time."""

    def cancel(self, id: str, owner: str | None = None) -> Job:
        """Cancel a job: at once if queued, at its next tile if running, else not at all. Raises UnknownJobError."""

    def retry(self, id: str, owner: str | None = None) -> Job:
        """Queue a failed, cancelled or dead-lettered job again. Raises UnknownJobError, or UsageError for any other."""

    def forget(self, id: str, owner: str | None = None) -> None:
        """Delete an ended job; the caller deletes its blobs. Raises UnknownJobError, or UsageError if not ended."""

    def stats(self) -> QueueStats:
        """The queue in numbers."""

    def work(self, handler: Handler, concurrency: int, stop: Event) -> None:
        """Run queued jobs, ``concurrency`` at a time, until ``stop`` is set and running ones have stopped.

        Jobs of workers that are gone are taken over. A stopped run goes back to the head of the queue.
        """

    def close(self) -> None:
        """Release resources. Closing twice does nothing."""
