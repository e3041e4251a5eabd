"""A worker: runs jobs, and deletes old ones."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ...domain.errors import OutputError, UnknownJobError, UsageError, VoxportError
from ...domain.job import ENDED
from ...ports.folders import WorkFolders
from ...ports.job_queue import Attempt, Handler, Results
from ..models.registry import ServedModels
from .admission import Slots
from .callbacks import Callbacks
from .kept_volumes import KeptVolumes
from .run import JobSettings
from .submit import CASES, JobPorts

_log = logging.getLogger("voxport.jobs")
_GLANCE_SECONDS = 0.2
_AGAIN_SECONDS = 5.0
_CALL_SECONDS = 1.0
_SUBMITTING_SECONDS = 3600.0  # an upload may take so long before its job exists
_ALL = 1_000_000


def work_on_jobs(
    concurrency: int,
    stop: threading.Event,
    *,
    handler: Handler,
    ports: JobPorts,
    settings: JobSettings,
    folders: WorkFolders,
    callbacks: Callbacks | None = None,
) -> None:
    """Run ``concurrency`` jobs at a time until ``stop`` is set; delete old jobs and files of killed processes.

    ``callbacks`` are made meanwhile.
    """
    folders.clear()
    ended = threading.Event()
    beside = [threading.Thread(target=_sweep, args=(ended, ports, settings), name="voxport-jobs-sweep", daemon=True)]
    if callbacks is not None:
        beside.append(
            threading.Thread(target=_call_back, args=(ended, callbacks), name="voxport-jobs-call", daemon=True)
        )
    for thread in beside:
        thread.start()
    try:
        ports.queue.work(handler, concurrency, stop)
    finally:
        ended.set()
        for thread in beside:
            thread.join()


def keep_working(work: Callable[[threading.Event], object], models: ServedModels, stop: threading.Event) -> None:
    """Call ``work`` once all models are known, and again where it fails, until ``stop`` is set.

    For a service that also runs jobs: it goes on after a failure.
    """
    wait_for_models(models, stop)
    while not stop.is_set():
        try:
            work(stop)
        except Exception:  # noqa: BLE001 - the jobs must go on
            _log.exception("running jobs failed; it starts again in %g s", _AGAIN_SECONDS)
            stop.wait(_AGAIN_SECONDS)


def wait_for_models(models: ServedModels, stop: threading.Event) -> None:
    """Wait until all models are known, or ``stop`` is set."""
    while not stop.is_set() and not models.wait(_GLANCE_SECONDS):
        pass


def in_a_slot(handler: Handler, slots: Slots) -> Handler:
    """A handler that first waits for a slot, in turn with requests."""

    def handle(attempt: Attempt) -> Results:
        with slots.hold(lambda: attempt.report(0, 0), patient=True):
            return handler(attempt)

    return handle


def _sweep(stop: threading.Event, ports: JobPorts, settings: JobSettings) -> None:
    while True:
        try:
            sweep(time.time(), settings.retention_seconds, ports=ports)
            KeptVolumes(ports.blobs).sweep()
        except (VoxportError, OSError) as error:
            _log.warning("%s; old jobs are deleted later", error)
        except Exception:  # noqa: BLE001 - else nothing would be deleted any more
            _log.exception("old jobs are deleted later")
        if stop.wait(settings.sweep_every_seconds):
            return


def _call_back(stop: threading.Event, callbacks: Callbacks) -> None:
    while not stop.wait(_CALL_SECONDS):
        try:
            callbacks.deliver()
        except (VoxportError, OSError) as error:
            _log.warning("%s; callbacks are sent later", error)
        except Exception:  # noqa: BLE001 - else no URL would be called any more
            _log.exception("callbacks are sent later")


def sweep(now: float, retention_seconds: float, *, ports: JobPorts) -> int:
    """Delete jobs that ended more than ``retention_seconds`` ago, and volumes without a job; the number of jobs.

    Raises:
        OutputError: some files could not be deleted. All others are deleted.
    """
    limit = now - retention_seconds
    old = ports.queue.list(states=ENDED, limit=_ALL, ended_before=limit)
    swept = []
    for job in old:
        with suppress(UnknownJobError, UsageError):  # deleted or queued again meanwhile
            ports.queue.forget(job.id)
            swept.append(job)
    # folders before jobs: one submitted in between is then no stray
    folders = {"/".join(name.split("/")[:2]) for name in ports.blobs.names(CASES)}
    strays = {folder for folder in folders if _begun(folder) < min(limit, now - _SUBMITTING_SECONDS)}
    if strays:
        strays -= {job.case.folder for job in ports.queue.list(limit=_ALL)}
    failed = []
    for folder in {job.case.folder for job in swept} | strays:
        try:
            ports.blobs.delete_prefix(folder)
        except OutputError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return len(swept)


def _begun(folder: str) -> float:
    began = folder.partition("/")[2].partition("-")[0]
    return float(began) if began.isdigit() else 0.0
