"""Delete the data of jobs: of one on request, of all that ended long ago, and volumes that no job has."""

from __future__ import annotations

from ...domain.errors import OutputError, UnknownJobError, UsageError
from ...domain.job import ENDED
from ...ports.job_queue import JobQueue
from .submit import CASES, JobPorts

_ALL = 1_000_000
_SUBMITTING_SECONDS = 3600.0  # an upload may take so long before its job exists


def forget_job(id: str, owner: str | None, *, ports: JobPorts) -> None:
    """Delete a job that has ended and its stored files. Raises UnknownJobError, UsageError, OutputError."""
    job = ports.queue.get(id, owner)
    if job.has_ended:
        ports.blobs.delete_prefix(job.case.folder)
    ports.queue.forget(id, owner)


def sweep(now: float, retention_seconds: float, *, ports: JobPorts) -> int:
    """Delete jobs that ended more than ``retention_seconds`` ago, and volumes without a job; the number of jobs.

    Raises:
        OutputError: some files could not be deleted. All others are deleted.
    """
    limit = now - retention_seconds
    old = ports.queue.list(states=ENDED, limit=_ALL, ended_before=limit)
    swept = [job for job in old if _is_forgotten(job.id, ports.queue)]
    # folders before jobs: one submitted in between is then no stray
    folders = {"/".join(name.split("/")[:2]) for name in ports.blobs.names(CASES)}
    strays = {folder for folder in folders if _begun(folder) < min(limit, now - _SUBMITTING_SECONDS)}
    if strays:
        strays -= {job.case.folder for job in ports.queue.list(limit=_ALL)}
    failed = []
    for folder in {job.case.folder for job in swept} | strays:
        try:
            ports.blobs.delete_prefix(folder)
        except OutputError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return len(swept)


def _is_forgotten(id: str, queue: JobQueue) -> bool:
    """Remove an old job from the queue; False if it was removed or queued again meanwhile."""
    try:
        queue.forget(id)
    except (UnknownJobError, UsageError):
        return False
    return True


def _begun(folder: str) -> float:
    began = folder.partition("/")[2].partition("-")[0]
    return float(began) if began.isdigit() else 0.0
