"""DBOS as a library: it writes to no terminal of ours, and knows no service outside. Import it before ``dbos``."""

from __future__ import annotations

import logging
import os
import threading
import time

_REPEATED_SECONDS = 60.0
_DRIVERS = ("(psycopg.", "(sqlite3.")  # as errors of the database are called in what DBOS says


class OnceAMinute(logging.Filter):
    """Lets a line of DBOS's code say something once a minute, and nothing of a lost database: that we say ourselves."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let it through; only its first line is left of it."""
        said = record.getMessage()
        if any(driver in said for driver in _DRIVERS):
            return False
        where, now = (record.pathname, record.lineno), time.monotonic()
        with self._lock:
            if now - self._said.get(where, -_REPEATED_SECONDS) < _REPEATED_SECONDS:
                return False
            self._said[where] = now
        record.msg, record.args = (said.splitlines() or [""])[0], None
        record.exc_info = record.exc_text = None
        return True


def _quieten() -> None:
    # in the cloud of its makers DBOS sends logs and traces to them, and takes commands
    os.environ.pop("DBOS__CLOUD", None)
    log = logging.getLogger("dbos")
    log.setLevel(logging.WARNING)
    log.addFilter(OnceAMinute())
    # where it finds a handler it adds none of its own, and its lines go to ours
    log.addHandler(logging.NullHandler())


_quieten()
