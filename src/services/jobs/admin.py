"""Jobs for operators: of any owner, found by a unique beginning of an id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...domain.errors import UsageError, VoxportError
from ...domain.job import Job, unknown_job
from ...domain.plain import iso_time
from ...ports.job_queue import JobQueue

_SHORTEST_PREFIX = 6
_ID_LENGTH = 36
_ALL = 1_000_000


def find_jobs(ids: Sequence[str], queue: JobQueue) -> tuple[Job, ...]:
    """Find jobs by ids or beginnings of ids. Raises UnknownJobError, or UsageError if too short or not unique."""
    return tuple(_find(id, queue) for id in ids)


def job_record(job: Job) -> dict[str, Any]:
    """A job as plain data; times are ISO 8601 in UTC."""
    return {
        "id": job.id,
        "owner": job.owner,
        "state": job.state,
        "cancelling": job.cancelling,
        "model": job.case.model,
        "model_sha256": job.case.model_sha256 or None,
        "inputs": [{"name": file.name, "blob": file.blob, "sha256": file.sha256} for file in job.case.inputs],
        "options": dict(job.case.options),
        "outputs": list(job.case.outputs),
        "submitted": iso_time(job.submitted),
        "started": iso_time(job.started),
        "ended": iso_time(job.ended),
        "position": job.position,
        "attempts": job.attempts,
        "tiles": {"done": job.tiles_done, "total": job.tiles_total},
        "estimate_seconds": job.case.estimate_seconds,
        "problem": None if job.failure is None else {"kind": job.failure.kind, "detail": job.failure.detail},
        "results": {name: {"blob": file.blob, "sha256": file.sha256} for name, file in job.results.items()},
    }


@contextmanager
def queue_errors(do: str = "start it, or correct VOXPORT_JOBS__DATABASE") -> Iterator[None]:
    """Raise a ConnectionError of the database as a VoxportError, with what to ``do``."""
    try:
        yield
    except ConnectionError as error:
        raise VoxportError("job queue", expected="a database that answers", got=str(error), do=do) from None


def _find(id: str, queue: JobQueue) -> Job:
    if len(id) >= _ID_LENGTH:
        return queue.get(id)
    if len(id) < _SHORTEST_PREFIX:
        expected = f"an id, or its first {_SHORTEST_PREFIX} characters at least"
        raise UsageError(f"job {id}", expected=expected, got=f"{len(id)}", do="see voxport jobs list")
    found = [job for job in queue.list(limit=_ALL) if job.id.startswith(id)]
    if not found:
        raise unknown_job(id)
    if len(found) > 1:
        got, do = f"the beginning of {len(found)} ids", "give more of it"
        raise UsageError(f"job {id}", expected="the beginning of one id", got=got, do=do)
    return found[0]
