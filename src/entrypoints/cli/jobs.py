"""``voxport jobs``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

from ...domain.errors import UsageError
from ...domain.job import JOB_STATES, Job, JobState
from . import options as opt
from .console import build_application, show_json, show_table, with_flags
from .serving import needs_package

if TYPE_CHECKING:
    from ...ports.job_queue import JobQueue

app = typer.Typer(
    no_args_is_help=True, help="Manage the jobs of all users in the queue of the settings (VOXPORT_JOBS__DATABASE)."
)
_SHORT_ID, _LONGEST_PROBLEM = 8, 80  # characters; ``show`` has all
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or its first 6 characters or more.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs, or their first 6 characters or more.")]


@app.command("list")
def list_command(
    states: Annotated[
        list[str] | None, typer.Option("--state", help=f"Only these: {', '.join(JOB_STATES)}.", show_default="all")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the latest first.")] = 100,
    as_json: opt.AsJson = False,
) -> None:
    """Show jobs, the latest first."""
    from ...services.jobs.admin import job_record

    wanted = [_state(word) for word in states] if states else None
    with _queue() as queue:
        found = queue.list(states=wanted, limit=limit)
    if as_json:
        show_json({"jobs": [job_record(job) for job in found]})
        return
    columns = ("id", "state", "model", "input", "tiles", "since", "attempts", "problem")
    show_table(columns, (_row(job, time.time()) for job in found), numbers=False)


@app.command("show")
def show_command(id: JobId, as_json: opt.AsJson = False) -> None:
    """Show all that is known of a job."""
    from ...services.jobs.admin import find_jobs, job_record

    with _queue() as queue:
        (job,) = find_jobs([id], queue)
    record = job_record(job)
    if as_json:
        show_json(record)
        return
    for name, value in record.items():
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        typer.echo(f"{name:<18}{text}")


@app.command("cancel")
def cancel_command(ids: JobIds) -> None:
    """Cancel jobs: at once if they wait, at their next tile if they run."""
    from ...services.jobs.admin import find_jobs

    with _queue() as queue:
        for job in find_jobs(ids, queue):
            after = queue.cancel(job.id)
            typer.echo(f"{job.id}: {'running; stops at its next tile' if after.cancelling else after.state}")


@app.command("retry")
def retry_command(ids: JobIds) -> None:
    """Queue jobs again that failed, were cancelled or were dead-lettered."""
    from ...services.jobs.admin import find_jobs

    with _queue() as queue:
        for job in find_jobs(ids, queue):
            typer.echo(f"{job.id}: {queue.retry(job.id).state}")


@contextmanager
def _queue() -> Iterator[JobQueue]:
    """Open the queue of the settings. Raises VoxportError if it does not exist."""
    needs_package("voxport jobs", "dbos")
    from ...services.jobs.admin import queue_errors

    with queue_errors():
        queue = build_application().known_job_queue
        try:
            yield queue
        finally:
            queue.close()


def _state(word: str) -> JobState:
    for state in JOB_STATES:
        if state == word:
            return state
    raise UsageError("--state", expected=f"one of {', '.join(JOB_STATES)}", got=word, do="correct it")


def _row(job: Job, now: float) -> tuple[object, ...]:
    from rich.markup import escape

    since = (job.started if job.state == "running" else job.ended) or job.submitted
    problem = shorten(with_flags(job.failure.detail) if job.failure else "", _LONGEST_PROBLEM, placeholder=" ...")
    state = f"{job.state}, stops" if job.cancelling else job.state
    names = escape(", ".join(file.name for file in job.case.inputs))
    tiles = f"{job.tiles_done}/{job.tiles_total}" if job.tiles_total else ""
    return job.id[:_SHORT_ID], state, job.case.model, names, tiles, _ago(now - since), job.attempts, escape(problem)


def _ago(seconds: float) -> str:
    """A time of one unit, e.g. ``3 min``."""
    name, unit = next((unit for unit in _UNITS if seconds >= unit[1]), _UNITS[-1])
    return f"{max(0.0, seconds) // unit:.0f} {name}"
