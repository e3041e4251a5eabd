"""Segment many cases over a queue of jobs: those that are done already are skipped, and a failed one stops no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...domain.cases import CaseFiles
from ...ports.locks import Locks
from ..jobs.admin import queue_errors
from ..jobs.submit import JobPorts
from .cohort import BatchListener, CaseResult, Cohort
from .folder import STATE, BatchFolder, held
from .record import BatchWork

_FOR_EVER_SECONDS = 1e9
Worker = Callable[[threading.Event], None]


def run_batch(
    cases: Sequence[CaseFiles],
    volumes: Path,
    folder: BatchFolder,
    work: BatchWork,
    listener: BatchListener,
    *,
    open_ports: Callable[[], JobPorts],
    locks: Locks,
    worker: Worker | None = None,
    at_once: int = 1,
) -> tuple[CaseResult, ...]:
    """Segment all cases that are not done yet, write their results and one table of all statistics.

    Args:
        cases: of the folder, with names of their own.
        volumes: the folder that the cases' files are below, as it was named.
        folder: of the results.
        work: what is made of each case.
        listener: hears how it goes on.
        open_ports: opens the queue.
        locks: keep other batches away from the folder.
        worker: runs the queue's jobs until it is told to stop, where the queue is this batch's own.
        at_once: how many of them at a time.

    Raises:
        UsageError: another batch writes to the folder now.
        OutputError: the folder takes nothing.
        VoxportError: the queue cannot be reached.
    """
    with held(folder, locks):
        token = folder.token(work.hash)
        with queue_errors() if worker is None else queue_errors(f"make room, or delete {folder.name / STATE}"):
            ports = open_ports()
            try:
                ports.queue.stats()  # where it cannot be reached now, nothing is begun
                own = None if worker is None else at_once
                cohort = Cohort(volumes, folder, work, token, ports=ports, listener=listener, at_once=own)
                cohort.drop_strays(cases)
                with _working_beside(worker) as check:
                    results = cohort.run(cases, check)
            finally:
                ports.queue.close()
        if not cohort.left:
            folder.clear()
    return results


def own_queue(folder: BatchFolder, at_once: int) -> dict[str, dict[str, Any]]:
    """Settings of a queue that is this batch's own; nobody else counts on it, and nothing of it grows too old."""
    jobs = {
        "database": folder.database,
        "blobs": folder.blobs,
        "concurrency": at_once,
        "length": 1_000_000,
        "retention_seconds": _FOR_EVER_SECONDS,
    }
    return {"jobs": jobs, "serving": {"slots": at_once}}


@contextmanager
def _working_beside(work: Worker | None) -> Iterator[Callable[[], None]]:
    """Work in a thread until the block ends, and then until the tiles that are being scored are.

    Gives a check that raises what the work died of, if it did.
    """
    stop = threading.Event()
    died_of: list[BaseException] = []

    def run() -> None:
        try:
            if work is not None:
                work(stop)
        except BaseException as error:  # noqa: BLE001 - raised again by the check
            died_of.append(error)

    def check() -> None:
        if died_of:
            raise died_of[0]

    thread = threading.Thread(target=run, name="voxport-batch-worker")
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
