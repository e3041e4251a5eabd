"""The database that DBOS keeps its workflows in, with our own tables beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from ....domain.errors import UsageError
from ....domain.job import ENDED
from .tables import ends, jobs, metadata

# Nobody waits longer than some of these after each other, whatever has happened to the database.
_PATIENCE_SECONDS = 5
_POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 10, "pool_timeout": _PATIENCE_SECONDS}
# libpq's own names. A host that is gone answers nothing: not when it is called, nor in the midst of a talk.
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


class Database:
    """A database by URL; nothing is touched before the first transaction, and failures of it are OSErrors.

    Raises:
        UsageError: the URL is of no database that keeps jobs.
    """

    def __init__(self, url: str) -> None:
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
        # the database's clock, so that machines need not agree on the time
        julian = "(julianday('now') - 2440587.5) * 86400.0"
        self._now = sa.text(f"SELECT {julian if self.is_sqlite else 'extract(epoch from clock_timestamp())'}")

    def create_place(self) -> None:
        """The folder and the file of an SQLite database, for the eyes of this user only, if there are none."""
        if not self.is_sqlite:
            return
        path = Path(self.engine.url.database or "")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise away(f"{path}: {(error.strerror or str(error)).lower()}") from error

    def check_tables(self) -> None:
        """Raise ConnectionError unless jobs are kept here already; nothing is created by it."""
        path = Path(self.engine.url.database or "")
        if self.is_sqlite and not path.is_file():
            raise away(f"{path}: no such file")
        with self.reading() as connection:
            if not sa.inspect(connection).has_table(jobs.name):
                raise away(f"no jobs are kept in {self.engine.url.database}")

    def create_tables(self) -> None:
        """Create what is missing; another process may be doing the same."""
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(8209347)"))
            metadata.create_all(connection)
            known = set(connection.execute(sa.select(ends.c.state)).scalars())
            if missing := sorted(ENDED - known):
                connection.execute(ends.insert(), [{"state": state, "total": 0} for state in missing])

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that only reads."""
        with place_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction; on SQLite, which locks no rows, it is alone from its beginning."""
        with place_errors(), self.engine.begin() as connection:
            if self.is_sqlite:
                connection.execute(sa.text("BEGIN IMMEDIATE"))
            yield connection

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the database's clock."""
        return float(connection.execute(self._now).scalar_one())

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def place_errors() -> Iterator[None]:
    """Failures of the database as ConnectionErrors; mistakes of ours stay what they are."""
    try:
        yield
    except _WRONG:
        raise
    except (sa.exc.DatabaseError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        raise away(error) from error


def away(why: object) -> ConnectionError:
    """The error for a database that cannot be used now, in its own words."""
    said = str(getattr(why, "orig", None) or why).strip() or type(why).__name__
    return ConnectionError(f"the job database: {said.splitlines()[0]}")


def _parsed(url: str) -> sa.URL:
    """A URL that jobs can be kept at. Its password is in no message."""
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
    connection.execute("PRAGMA journal_mode=WAL")  # those who read do not wait for those who write


def _set_up_postgres(connection: Any, _record: ConnectionPoolEntry) -> None:
    # a worker that is stopped in the midst of a transaction must not stop the others
    connection.execute(_SET_UP_POSTGRES)
    connection.commit()
