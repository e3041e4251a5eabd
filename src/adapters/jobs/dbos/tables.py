"""The tables beside DBOS's own, in the same database: jobs as their owners see them, and which workers are alive."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from ....domain.job import Job, JobFailure, case_mapping, read_case, read_results, results_mapping

metadata = sa.MetaData()
_LONGEST_DETAIL = 4000
_serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# round: how often the job was handed to DBOS; each time is a workflow of its own, ``ID.ROUND``.
# front, lined: 0 for a job that goes before the others, and since when it waits; DBOS's order is the same.
jobs = sa.Table(
    "voxport_jobs",
    metadata,
    sa.Column("seq", _serial, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("request_key", sa.Text),
    sa.Column("job_case", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("submitted", sa.Double, nullable=False),
    sa.Column("started", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("strikes", sa.Integer, nullable=False),
    sa.Column("tiles_done", sa.Integer, nullable=False),
    sa.Column("tiles_total", sa.Integer, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("failure_kind", sa.Text),
    sa.Column("failure_detail", sa.Text),
    sa.Column("results", sa.Text, nullable=False),
    sa.Column("front", sa.Integer, nullable=False),
    sa.Column("lined", sa.Double, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(36)),
    sa.UniqueConstraint("owner", "request_key"),
    sa.Index("voxport_jobs_line", "state", "front", "lined", "seq"),
    sa.Index("voxport_jobs_ended", "state", "ended"),
)

workers = sa.Table(
    "voxport_workers",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("beat", sa.Double, nullable=False),
)

# how many jobs ever ended in a state, deleted ones too
ends = sa.Table(
    "voxport_job_ends",
    metadata,
    sa.Column("state", sa.String(16), primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
)


def columns_of(job: Job) -> dict[str, Any]:
    """What changes of a job, as columns."""
    return {
        "state": job.state,
        "started": job.started,
        "ended": job.ended,
        "attempts": job.attempts,
        "strikes": job.strikes,
        "tiles_done": job.tiles_done,
        "tiles_total": job.tiles_total,
        "cancelling": job.cancelling,
        "failure_kind": job.failure.kind if job.failure else None,
        "failure_detail": _storable(job.failure.detail) if job.failure else None,
        "results": json.dumps(results_mapping(job.results)),
    }


def fixed_columns_of(job: Job) -> dict[str, Any]:
    """What never changes of a job, as columns."""
    case = json.dumps(case_mapping(job.case))
    return {"id": job.id, "owner": job.owner, "job_case": case, "submitted": job.submitted}


def job_of(row: sa.Row[Any], position: int | None = None) -> Job:
    """A row as a job."""
    return Job(
        row.id,
        row.owner,
        read_case(json.loads(row.job_case)),
        row.submitted,
        row.state,
        row.started,
        row.ended,
        row.attempts,
        row.strikes,
        row.tiles_done,
        row.tiles_total,
        position,
        bool(row.cancelling),
        None if row.failure_kind is None else JobFailure(row.failure_kind, row.failure_detail),
        read_results(json.loads(row.results)),
    )


def _storable(text: str) -> str:
    """Text of an error, which may hold what a file says, as every database takes it: no NUL, no half of a character."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:_LONGEST_DETAIL]
