"""A worker as a process: ``python -m tests.jobs.worker URL FOLDER LEASE_SECONDS SLOTS``; notes what it does in FOLDER.

What a job does is in its case's options: ``hold`` tiles go on until FOLDER/release exists, ``poison`` kills its worker.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.ports.job_queue import Attempt, QueueLimits, Results
from voxport.testing.job_queue import results_of

TILES = 5


def main(url: str, folder: Path, lease_seconds: float, slots: int) -> None:
    """Work until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def note(what: str, attempt: Attempt) -> None:
        with (folder / "notes").open("a") as notes:
            notes.write(f"{what} {attempt.job.id} {attempt.job.attempts} {os.getpid()}\n")

    def handler(attempt: Attempt) -> Results:
        note("begin", attempt)
        options = attempt.job.case.options
        if options.get("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        for done in range(TILES):
            attempt.report(done, TILES)
            stop.wait(0.02)
        while options.get("hold") and not (folder / "release").exists():
            attempt.report(TILES - 1, TILES)
            stop.wait(0.02)
        attempt.report(TILES, TILES)
        note("end", attempt)
        return results_of(attempt.job)

    queue = DbosJobQueue(url, QueueLimits(lease_seconds=lease_seconds, backoff_seconds=0.1))
    queue.work(handler, slots, stop)
    queue.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
