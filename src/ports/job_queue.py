"""Jobs that wait for a worker, on this machine or on any that shares the queue, and outlive them all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from ..domain.job import Job, JobCase, JobState, StoredFile

Results = Mapping[str, StoredFile]


class Attempt(Protocol):
    """One run of a job, as the handler that does it sees it."""

    @property
    def job(self) -> Job:
        """The job as it was when this run began; ``job.attempts`` is this run's number."""
        ...

    def report(self, done: int, total: int) -> None:
        """So many tiles of so many are done.

        Raises:
            CancelledError: the run should stop: the job was cancelled, the worker is to stop, or the job is no longer
                this worker's.
        """
        ...


# Does a job and gives its stored results. What it raises is settled by ``domain.job.settled``.
Handler = Callable[[Attempt], Results]


@dataclass(frozen=True)
class QueueStats:
    """How many jobs are in each state, how long the oldest queued one has waited, and what a job typically takes.

    ``typical_seconds`` is None where none is done yet; ``ended`` counts all that ever ended so, deleted ones too.
    ``workers`` are processes that run jobs now, ``slots`` how many jobs they can run at a time, all together.
    """

    counts: Mapping[JobState, int]
    oldest_queued_seconds: float
    typical_seconds: float | None
    workers: int
    slots: int
    ended: Mapping[JobState, int]


@dataclass(frozen=True)
class QueueLimits:
    """What a queue takes and puts up with.

    Args:
        length: jobs that may wait at a time.
        strikes: runs that end without an explanation, or take their worker with them, until a job is set aside.
        lease_seconds: how long a worker may be silent before its jobs are given to others.
        backoff_seconds: least wait before a job that did not end is tried again; it doubles with each attempt.
    """

    length: int = 1000
    strikes: int = 3
    lease_seconds: float = 15.0
    backoff_seconds: float = 2.0


class JobQueue(Protocol):
    """A queue of jobs; first come, first served. Safe for several threads.

    ``owner`` is who made a job. Where it is given, jobs of others are not found; operators leave it out.
    Where the place that keeps the queue fails, OSError is raised, and nothing has changed.
    """

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        """Put a case into the queue; once this returns, the job is not lost.

        ``key`` names the request: the same key of the same owner gives the job that it made the first time.

        Raises:
            BusyError: as many jobs wait as may.
            UsageError: the key was used for another case.
        """
        ...

    def get(self, id: str, owner: str | None = None) -> Job:
        """A job. Raises UnknownJobError."""
        ...

    def list(
        self,
        owner: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 100,
        *,
        ended_before: float | None = None,
    ) -> tuple[Job, ...]:
        """Jobs, the latest submitted first; where ``ended_before`` is given, those that ended earlier than that."""
        ...

    def cancel(self, id: str, owner: str | None = None) -> Job:
        """Cancel a job: at once if it waits, at its next tile if it runs; one that has ended stays as it is.

        Raises:
            UnknownJobError
        """
        ...

    def retry(self, id: str, owner: str | None = None) -> Job:
        """Put a job that failed, was cancelled or was set aside into the queue again.

        Raises:
            UnknownJobError
            UsageError: it is in another state.
        """
        ...

    def forget(self, id: str, owner: str | None = None) -> None:
        """Drop a job that has ended; its blobs are the caller's to delete.

        Raises:
            UnknownJobError
            UsageError: it has not ended.
        """
        ...

    def stats(self) -> QueueStats:
        """The queue in numbers."""
        ...

    def work(self, handler: Handler, concurrency: int, stop: Event) -> None:
        """Run queued jobs, so many at a time, until ``stop`` is set and those that run have stopped.

        Jobs of workers that are gone are taken over. A run that is stopped goes back to the head of the queue.
        """
        ...

    def close(self) -> None:
        """Release what is held. Closing twice does nothing."""
        ...
