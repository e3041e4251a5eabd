"""How often a worker looks for jobs: again and again just after one has ended or come, and rarely otherwise."""

from __future__ import annotations

import threading
from typing import Any

from dbos._dbos import _get_dbos_instance

LOOK_SECONDS = 0.01
_REST_SECONDS = 0.2
# DBOS counts a slot as free a moment after its job has ended
_LOOKS = 15


class Pace:
    """Gives DBOS's thread that looks for jobs its rest. Safe for several threads."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._looks = 0

    def look_now(self) -> None:
        """There may be a job to take up, or a slot for it."""
        with self._change:
            self._looks = _LOOKS
            self._change.notify()

    def rest(self) -> None:
        """Wait until it is time to look."""
        with self._change:
            self._change.wait_for(lambda: self._looks > 0, _REST_SECONDS)
            self._looks = max(0, self._looks - 1)


def set_up_here(queue_name: str, slots: int, pace: Pace) -> None:
    """Run at most so many jobs at a time in this process, look for them at its own pace, and wait for no database.

    DBOS keeps a queue's limit for each worker in the shared database, one figure for all of them; machines differ.
    Until this is in force that figure counts, which is 1. It asks for the figure before each look. While the database
    is away DBOS would keep threads that wait for it, also beyond the end of the process; the ledger needs none.
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
