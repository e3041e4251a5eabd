"""DBOS as a library: logs through `logging` only, no contact to other services, no pickles, its own polling rate.

Import this module before ``dbos``, which reads its environment when it is imported.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import Any

# set in DBOS's cloud, where DBOS sends logs and traces to its makers and accepts commands
os.environ.pop("DBOS__CLOUD", None)

from dbos import Serializer
from dbos._dbos import _get_dbos_instance

QUEUE, WORKFLOW, VERSION, APPLICATION = "voxport-jobs", "voxport_job", "voxport-jobs-1", "voxport"
LOOK_SECONDS = 0.01
_REST_SECONDS = 0.2
_LOOKS = 15  # DBOS counts a slot as free a moment after its job has ended
_REPEATED_SECONDS = 60.0
_DRIVERS = ("(psycopg.", "(sqlite3.")  # how DBOS's messages name errors of the database
_PICKLE, _REFUSED = "py_pickle", "refused_pickle"


class JsonSerializer(Serializer):
    """Keeps arguments, a job's id and a number, as JSON. DBOS's default is a pickle, which can run code."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=str)  # an exception is kept as its message

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805 - the signature is DBOS's
        return json.loads(serialized_data)

    def name(self) -> str:
        return "voxport_json"


def without_pickles(text: str) -> str:
    """Replace the name ``py_pickle`` in text from the database.

    Each of DBOS's rows names its format, and DBOS unpickles those of ``py_pickle``, whatever serializer it is given.
    For an unknown name it raises TypeError.
    """
    return _REFUSED if text == _PICKLE else text


class OnceAMinute(logging.Filter):
    """Passes each message of DBOS once a minute, and none about a lost database, which voxport reports itself."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes; cuts its message to one line, without a traceback."""
        message = record.getMessage()
        if any(driver in message for driver in _DRIVERS):
            return False
        where, now = (record.pathname, record.lineno), time.monotonic()
        with self._lock:
            if now - self._logged.get(where, -_REPEATED_SECONDS) < _REPEATED_SECONDS:
                return False
            self._logged[where] = now
        record.msg, record.args = (message.splitlines() or [""])[0], None
        record.exc_info = record.exc_text = None
        return True


def limit_logging() -> None:
    """Let DBOS log warnings, each once a minute, through the handlers of the program that uses it."""
    log = logging.getLogger("dbos")
    log.setLevel(logging.WARNING)
    if not any(isinstance(known, OnceAMinute) for known in log.filters):
        log.addFilter(OnceAMinute())
    if not log.handlers:  # DBOS adds one of its own where it finds none
        log.addHandler(logging.NullHandler())


class Pace:
    """Polling rate of a worker: every 0.2 s, faster just after a job ended or arrived. Safe for several threads."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._looks = 0

    def look_now(self) -> None:
        """Poll soon: a job may have arrived, or a slot may be free."""
        with self._change:
            self._looks = _LOOKS
            self._change.notify()

    def rest(self) -> None:
        """Wait for the next poll."""
        with self._change:
            self._change.wait_for(lambda: self._looks > 0, _REST_SECONDS)
            self._looks = max(0, self._looks - 1)


def set_up_here(queue_name: str, slots: int, pace: Pace) -> None:
    """Let this process run ``slots`` jobs at a time, poll at ``pace``, and not wait for a lost database.

    DBOS stores one concurrency limit a queue, here 1, in the shared database, and reads it before each poll; machines
    differ. While the database is away, threads of DBOS would wait for it, even beyond the end of the process.
    """
    system: Any = _get_dbos_instance()._sys_db
    shared = system.get_queue
    known: list[Any] = []

    def get_queue(name: str, **options: Any) -> Any:
        if name != queue_name:
            return shared(name, **options)
        pace.rest()
        if not known and (queue := shared(name, **options)) is not None:
            queue._worker_concurrency = slots
            known.append(queue)
        return known[0] if known else None

    system.get_queue = get_queue
    system._retry_connection_errors = False
