"""The tables beside DBOS's own, in the same database: jobs as their owners see them, and which workers are alive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from ...domain.job import ENDED, Job, JobFailure, case_mapping, read_case, read_results, results_mapping

_metadata = sa.MetaData()
_serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# round: how often the job was handed to DBOS; each time is a workflow of its own, ``ID.ROUND``.
# front, lined: 0 for a job that goes before the others, and since when it waits; DBOS's order is the same.
jobs = sa.Table(
    "voxport_jobs",
    _metadata,
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
)

workers = sa.Table(
    "voxport_workers",
    _metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("beat", sa.Double, nullable=False),
)

# how many jobs ever ended in a state, deleted ones too
ends = sa.Table(
    "voxport_job_ends",
    _metadata,
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
        "failure_detail": job.failure.detail if job.failure else None,
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


class Database:
    """The database that DBOS keeps its workflows in, for our own tables; failures of it are OSErrors."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._engine = sa.create_engine(parsed)
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
        else:
            self._engine = sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        # the database's clock, so that machines need not agree on the time
        julian = "(julianday('now') - 2440587.5) * 86400.0"
        self._now = sa.text(f"SELECT {julian if self.is_sqlite else 'extract(epoch from clock_timestamp())'}")

    def create_tables(self) -> None:
        """Create what is missing; another process may be doing the same."""
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(8209347)"))
            _metadata.create_all(connection)
            known = set(connection.execute(sa.select(ends.c.state)).scalars())
            if missing := sorted(ENDED - known):
                connection.execute(ends.insert(), [{"state": state, "total": 0} for state in missing])

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that only reads."""
        with place_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction; on SQLite, which locks no rows, it is alone from its beginning."""
        with place_errors(), self._engine.begin() as connection:
            if self.is_sqlite:
                connection.execute(sa.text("BEGIN IMMEDIATE"))
            yield connection

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the database's clock."""
        return float(connection.execute(self._now).scalar_one())

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")  # those who read do not wait for those who write


@contextmanager
def place_errors() -> Iterator[None]:
    """Failures of the database as OSErrors."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.TimeoutError) as error:
        raise ConnectionError(f"the job database: {str(error).splitlines()[0]}") from error
