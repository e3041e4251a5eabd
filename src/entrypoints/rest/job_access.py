"""Access of the routes to the job queue and stored files, in separate threads, with failures as problems."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import Depends
from fastapi import Path as PathParameter
from starlette.requests import Request

from ...application import Application
from ...contract.job import job_mapping
from ...domain.errors import InputError, UsageError
from ...domain.job import Job, eta_seconds, unknown_job
from ...ports.blobs import BlobStore
from ...ports.job_queue import JobQueue, QueueStats
from ..public_address import prefix_of
from .problems import ProblemError
from .shield import ANONYMOUS

T = TypeVar("T")
_log = logging.getLogger("voxport.jobs")
_THREADS = 16
_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 3.0
_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
JobId = Annotated[str, PathParameter(description="The job's id.", examples=["5f2c1f0e-6f7b-4a53-9d0c-0e8f0a8f3b57"])]


class JobAccess:
    """Jobs for the routes.

    Args:
        application: has the queue and the stored files.
        public: takes the folders of the server out of a text.

    Attributes:
        listeners: how many streams of events are open.
    """

    def __init__(self, application: Application, public: Callable[[str], str]) -> None:
        self._application, self._public = application, public
        # separate threads: a request for a job's state does not wait for uploads and estimates
        self._threads = CapacityLimiter(_THREADS)
        self._stats: QueueStats | None = None
        self._stats_from = -_FRESH_SECONDS
        self.listeners = 0

    async def open(self) -> None:
        """Create the queue before several threads use it; its database may still be unavailable."""
        await to_thread.run_sync(lambda: self._application.job_ports)

    async def close(self) -> None:
        """Release the queue."""
        await to_thread.run_sync(self._application.job_queue.close)

    async def ask(self, do: Callable[[JobQueue], T]) -> T:
        """Run ``do`` on the queue. Raises ProblemError if it is unavailable, or a job's state does not allow it."""
        try:
            return await self.in_thread(lambda: reached(lambda: do(self._application.job_queue)))
        except UsageError as error:
            got, do_next = error.got, error.do
            raise ProblemError("conflict", error.subject, expected=error.expected, got=got, do=do_next) from None

    async def read(self, do: Callable[[BlobStore], T]) -> T:
        """Run ``do`` on the stored files. Raises ProblemError if they are unavailable."""
        return await self.in_thread(lambda: read(lambda: do(self._application.blobs)))

    async def in_thread(self, do: Callable[[], T]) -> T:
        """Run a blocking function in a thread for jobs."""
        return await to_thread.run_sync(do, limiter=self._threads)

    async def stats(self) -> QueueStats | None:
        """The queue's statistics; None if it does not answer within 3 s."""
        with move_on_after(_PATIENCE_SECONDS):
            queue = self._application.job_queue
            try:
                return await to_thread.run_sync(queue.stats, abandon_on_cancel=True, limiter=self._threads)
            except OSError as error:
                _log.warning("%s", error)
        return None

    async def mappings(self, request: Request, *jobs: Job) -> list[dict[str, Any]]:
        """Jobs as plain data, with links for the caller. End times come from statistics at most a second old."""
        now = time.monotonic()
        if now - self._stats_from >= _FRESH_SECONDS and not all(job.has_ended for job in jobs):
            self._stats_from = now  # others meanwhile take the old numbers
            self._stats = await self.stats()
        typical, slots = (None, 1) if self._stats is None else (self._stats.typical_seconds, self._stats.slots)
        etas = (eta_seconds(job, time.time(), typical_seconds=typical, concurrency=slots) for job in jobs)
        kept, prefix = self._application.settings.jobs.retention_seconds, prefix_of(request.scope)
        return [
            job_mapping(job, eta, retention_seconds=kept, public=self._public, prefix=prefix)
            for job, eta in zip(jobs, etas, strict=True)
        ]


def reached(do: Callable[[], T]) -> T:
    """Call the queue. Raises ProblemError if its database fails."""
    try:
        return do()
    except OSError as error:
        raise _unavailable("job queue", "a database that can be reached", error) from error


def read(do: Callable[[], T]) -> T:
    """Read a job's stored files. Raises ProblemError on failure.

    A missing file counts as unreachable: a job keeps all its files for as long as it exists.
    """
    try:
        return do()
    except (OSError, InputError) as error:
        raise _unavailable("stored files", "a place that can be read", error) from error


def principal(request: Request) -> str:
    """The owner whose jobs the caller may see."""
    return str(getattr(request.state, "principal", ANONYMOUS))


async def own_job(request: Request, id: JobId) -> Job:
    """A dependency: the caller's job with the id of the path. Raises UnknownJobError, also for another caller's job."""
    if not _ID.fullmatch(id):
        raise unknown_job(id)
    jobs: JobAccess = request.app.state.context.jobs
    return await jobs.ask(lambda queue: queue.get(id, principal(request)))


OwnJob = Annotated[Job, Depends(own_job)]


def _unavailable(subject: str, expected: str, error: Exception) -> ProblemError:
    # logged only: the message may name hosts and folders of the server
    _log.warning("%s", error)
    retry, headers = "try again in 5 s", {"Retry-After": "5"}
    return ProblemError("unavailable", subject, expected=expected, got="none", do=retry, headers=headers)
