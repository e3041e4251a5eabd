"""The database: voxport's tables beside those of DBOS, connections and transactions. Failures are OSErrors."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, error
from sqlalchemy.pool import ConnectionPoolEntry

from ....domain.errors import UsageError
from ....domain.job import ENDED, Job, JobFailure, read_case, read_results, results_mapping
from .library import APPLICATION, LOOK_SECONDS, QUEUE, JsonSerializer, without_pickles

# longest wait for a database
_PATIENCE_SECONDS = 5
_POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 10, "pool_timeout": _PATIENCE_SECONDS}
# libpq's names: an unreachable host neither accepts a connection nor ends one
_POSTGRES_OPTIONS = {
    "application_name": "voxport",
    "connect_timeout": "3",
    "tcp_user_timeout": "3000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
}
_SET_UP_POSTGRES = f"SET lock_timeout = '{_PATIENCE_SECONDS}s'; SET idle_in_transaction_session_timeout = '15s'"
_WRONG = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError)
_LONGEST_DETAIL = 4000
_serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# columns with the name and the type of a field of Job
_CHANGING = ("state", "started", "ended", "attempts", "failed_attempts", "tiles_done", "tiles_total", "cancelling")

metadata = sa.MetaData()

# round: number of times the job was enqueued in DBOS, each time as a workflow ``ID.ROUND``.
# priority (0 before 1) and queued_since (seconds since 1970): the order of queued jobs, which DBOS keeps too.
# Columns keep their names in existing databases; ``key`` gives the name used here.
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
    sa.Column("strikes", sa.Integer, key="failed_attempts", nullable=False),
    sa.Column("tiles_done", sa.Integer, nullable=False),
    sa.Column("tiles_total", sa.Integer, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("failure_kind", sa.Text),
    sa.Column("failure_detail", sa.Text),
    sa.Column("results", sa.Text, nullable=False),
    sa.Column("front", sa.Integer, key="priority", nullable=False),
    sa.Column("lined", sa.Double, key="queued_since", nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(36)),
    sa.UniqueConstraint("owner", "request_key"),
    sa.Index("voxport_jobs_line", "state", "priority", "queued_since", "seq"),
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

# number of jobs that ever ended in each state, including deleted jobs
ends = sa.Table(
    "voxport_job_ends",
    metadata,
    sa.Column("state", sa.String(16), primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
)


class Database:
    """A database by URL. The first transaction connects and creates what is missing; failures are ConnectionErrors.

    With ``create`` false, a database without tables counts as away. ``client`` is DBOS's, on the same connections.

    Raises:
        UsageError: the URL names no database that can keep jobs.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        parsed = _parsed(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            parsed = parsed.set(database=str(Path(parsed.database or "").absolute()))
            self.engine = sa.create_engine(parsed, connect_args={"timeout": _PATIENCE_SECONDS}, **_POOL)
        else:
            parsed = parsed.update_query_dict(
                {name: value for name, value in _POSTGRES_OPTIONS.items() if name not in parsed.query}
            )
            self.engine = sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, **_POOL)
        sa.event.listen(self.engine, "connect", _set_up_sqlite if self.is_sqlite else _set_up_postgres)
        self.url = parsed.render_as_string(hide_password=False)
        self.client = DBOSClient(
            system_database_url=self.url,
            system_database_engine=self.engine,
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
            serializer=JsonSerializer(),
        )
        # the database's clock, because those of the machines may differ
        julian = "(julianday('now') - 2440587.5) * 86400.0"
        self._now = sa.text(f"SELECT {julian if self.is_sqlite else 'extract(epoch from clock_timestamp())'}")
        self._create, self._is_open, self._opening = create, False, threading.Lock()
        self._failure, self._failed_at = "", 0.0

    def close(self) -> None:
        """Close all connections."""
        self.client.destroy()
        self.engine.dispose()

    def open(self) -> None:
        """Create the tables and the queue once. Raises ConnectionError within seconds where the database is away."""
        if self._is_open:
            return
        asked = time.monotonic()
        with self._opening:
            if self._is_open:
                return
            if self._failed_at > asked:  # tried while this caller waited
                raise ConnectionError(self._failure)
            try:
                self._create_missing() if self._create else self._check_tables()
            except ConnectionError as failure:
                self._failure, self._failed_at = str(failure), time.monotonic()
                raise
            self._is_open = True

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        self.open()
        with place_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a transaction. On SQLite, which locks no rows, it excludes other transactions from its beginning."""
        self.open()
        with self._transaction() as connection:
            yield connection

    def now(self, connection: sa.Connection) -> float:
        """Return the seconds since 1970 by the database's clock."""
        return float(connection.execute(self._now).scalar_one())

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with place_errors(), self.engine.begin() as connection:
            if self.is_sqlite:
                connection.execute(sa.text("BEGIN IMMEDIATE"))
            yield connection

    def _check_tables(self) -> None:
        path = Path(self.engine.url.database or "")
        if self.is_sqlite and not path.is_file():
            raise away(f"{path}: no such file")
        with place_errors(), self.engine.connect() as connection:
            if not sa.inspect(connection).has_table(jobs.name):
                raise away(f"no jobs are kept in {self.engine.url.database}")

    def _create_missing(self) -> None:
        """Create the database, the tables and the queue; another process may do the same at the same time."""
        if self.is_sqlite:
            self._create_file()
        try:  # DBOS would wait longer for a lost database
            with self._transaction():
                pass
        except ConnectionError as failure:
            if self.is_sqlite or "does not exist" not in str(failure):  # DBOS creates a missing Postgres database
                raise
        try:
            DBOS.migrate(self.url)
            with self._transaction() as connection:
                if not self.is_sqlite:
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(8209347)"))
                metadata.create_all(connection)
                known = set(connection.execute(sa.select(ends.c.state)).scalars())
                if missing := sorted(ENDED - known):
                    connection.execute(ends.insert(), [{"state": state, "total": 0} for state in missing])
            self.client.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=LOOK_SECONDS)
        except (sa.exc.SQLAlchemyError, error.DBOSException) as failure:  # e.g. no right to create tables
            raise away(failure) from failure

    def _create_file(self) -> None:
        """Create the folder and file of an SQLite database, readable by this user only, where they are missing."""
        path = Path(self.engine.url.database or "")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as failure:
            raise away(f"{path}: {(failure.strerror or str(failure)).lower()}") from failure


@contextmanager
def place_errors() -> Iterator[None]:
    """Raise failures of the database as ConnectionErrors; programming errors pass."""
    try:
        yield
    except _WRONG:
        raise
    except (sa.exc.DatabaseError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        raise away(error) from error


def away(why: object) -> ConnectionError:
    """Return the error for a database that cannot be used now, with the first line of the cause."""
    cause = str(getattr(why, "orig", None) or why).strip() or type(why).__name__
    return ConnectionError(f"the job database: {cause.splitlines()[0]}")


def _parsed(url: str) -> sa.URL:
    """Parse a database URL; no message contains its password."""
    expected, do = "sqlite:////folder/jobs.sqlite or postgresql://user@host/name", "change VOXPORT_JOBS__DATABASE"
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise UsageError("jobs.database", expected=expected, got="no URL", do=do) from None
    got = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() not in ("sqlite", "postgresql", "postgres"):
        raise UsageError("jobs.database", expected=expected, got=got, do=do)
    if parsed.database in (None, "", ":memory:"):
        raise UsageError("jobs.database", expected=expected, got=f"{got}, which names none", do=do)
    return parsed


def _set_up_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA foreign_keys=ON")  # DBOS's tables rely on it
    connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for writers
    connection.text_factory = lambda text: without_pickles(text.decode())


def _set_up_postgres(connection: Any, _record: ConnectionPoolEntry) -> None:
    from psycopg.types.string import TextLoader

    class PicklelessLoader(TextLoader):
        def load(self, data: Any) -> str | bytes:
            text = super().load(data)
            return without_pickles(text) if isinstance(text, str) else text

    for type_name in ("text", "varchar"):
        connection.adapters.register_loader(type_name, PicklelessLoader)
    # a worker that is suspended within a transaction must not block the others
    connection.execute(_SET_UP_POSTGRES)
    connection.commit()


def columns_of(job: Job) -> dict[str, Any]:
    """Return the columns of a job that change."""
    return {name: getattr(job, name) for name in _CHANGING} | {
        "failure_kind": job.failure.kind if job.failure else None,
        "failure_detail": _storable(job.failure.detail) if job.failure else None,
        "results": json.dumps(results_mapping(job.results)),
    }


def job_of(row: sa.Row[Any], position: int | None = None) -> Job:
    """Build the job of a row."""
    changing = {name: getattr(row, name) for name in _CHANGING}
    failure = None if row.failure_kind is None else JobFailure(row.failure_kind, row.failure_detail)
    case, results = read_case(json.loads(row.job_case)), read_results(json.loads(row.results))
    return Job(row.id, row.owner, case, row.submitted, position=position, failure=failure, results=results, **changing)


def _storable(text: str) -> str:
    """Return error text, which may quote a file, without NUL and lone surrogates, which databases refuse."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:_LONGEST_DETAIL]
