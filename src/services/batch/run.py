"""Segment many cases through a queue of jobs; skips cases that are done, and goes on after a failed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from ...domain.cases import CaseFiles
from ...ports.locks import Locks
from ..jobs.admin import queue_errors
from ..jobs.submit import JobPorts
from .cohort import BatchListener, CaseResult, Cohort
from .folder import STATE, BatchFolder, held
from .record import BatchWork

_FOREVER_SECONDS = 1e9
Worker = Callable[[Event], object]


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
    """Segment all cases that are not done, and write their results and one table of statistics.

    Cases have unique names, and their files lie below ``volumes``. ``worker`` runs ``at_once`` jobs at a time until its
    event is set; None for a shared queue.

    Raises:
        UsageError: another batch writes to the folder now.
        OutputError: the folder cannot be written.
        VoxportError: the queue cannot be reached.
    """
    with held(folder, locks):
        token = folder.token(work.hash)
        with queue_errors() if worker is None else queue_errors(f"free disk space, or delete {folder.name / STATE}"):
            ports = open_ports()
            try:
                ports.queue.stats()  # raises here, before anything begins, where the queue is away
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
    """Settings of a batch's own queue, which keeps its jobs without limit."""
    jobs = {
        "database": folder.database,
        "blobs": folder.blobs,
        "concurrency": at_once,
        "length": 1_000_000,
        "retention_seconds": _FOREVER_SECONDS,
    }
    return {"jobs": jobs, "serving": {"slots": at_once}}


@contextmanager
def _working_beside(work: Worker | None) -> Iterator[Callable[[], object]]:
    """Work in a thread until the block ends; gives a check that raises the error that ended the work, if any."""
    stop = Event()
    with ThreadPoolExecutor(1, "voxport-batch-worker") as pool:
        working = pool.submit(work or Event.wait, stop)
        try:
            yield lambda: working.result() if working.done() else None
        finally:
            stop.set()
