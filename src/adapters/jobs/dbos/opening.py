"""Making the database ready for jobs: once, at the first use, and again and again for as long as it is away."""

from __future__ import annotations

import threading
import time

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, error

from .database import Database, away
from .ledger import QUEUE
from .pace import LOOK_SECONDS


class Opening:
    """Tables of DBOS and of ours, and the line, in a database that may not be there yet. Safe for several threads.

    Where it is not to ``create`` anything, a database without them is one that is away.
    """

    def __init__(self, database: Database, client: DBOSClient, *, create: bool = True) -> None:
        self._database, self._client, self._create = database, client, create
        self._done = False
        self._lock = threading.Lock()
        self._failure, self._failed_at = "", 0.0

    def ensure(self) -> None:
        """Make it ready if that is not done. Raises ConnectionError within seconds where the database is away."""
        if self._done:
            return
        asked = time.monotonic()
        with self._lock:
            if self._done:
                return
            if self._failed_at > asked:  # tried while we waited: many callers do not wait one after the other
                raise ConnectionError(self._failure)
            try:
                self._open()
            except ConnectionError as failure:
                self._failure, self._failed_at = str(failure), time.monotonic()
                raise
            self._done = True

    def _open(self) -> None:
        if not self._create:
            self._database.check_tables()
            return
        self._database.create_place()
        self._probe()
        try:
            DBOS.migrate(self._database.url)
            self._database.create_tables()
            self._client.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=LOOK_SECONDS)
        except (sa.exc.SQLAlchemyError, error.DBOSException) as failure:  # such as tables that we may not create
            raise away(failure) from failure

    def _probe(self) -> None:
        """Find out within seconds, as DBOS takes its time. A Postgres database that is missing DBOS creates."""
        try:
            with self._database.writing():
                pass
        except ConnectionError as failure:
            if self._database.is_sqlite or "does not exist" not in str(failure):
                raise
