"""``voxport worker``."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import on_stop
from .serving import application_to_infer, needs_package


def worker_command(
    models: opt.ModelsFolder = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The default model: a name, or an ONNX file.")
    ] = None,
    store: opt.StoreName = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Jobs to run at a time.", show_default="1")
    ] = None,
    threads: opt.Threads = None,
    scratch: Annotated[
        Path | None,
        typer.Option("--scratch", help="Folder for the files of running jobs.", show_default="the temporary folder"),
    ] = None,
) -> None:
    """Run jobs of the queue until stopped; any number of workers share a queue.

    VOXPORT_JOBS__DATABASE and VOXPORT_JOBS__BLOBS name the queue and its files.
    """
    needs_package("voxport worker", "dbos")
    from ...services.jobs.worker import wait_for_models
    from ..json_log import check_models_folder, log_as_json

    stop = threading.Event()
    on_stop(stop.set)
    log_as_json()
    jobs = None if concurrency is None else {"concurrency": concurrency}
    application = application_to_infer(models, model, store, threads, scratch, jobs=jobs)
    served, queue = application.served_models, application.job_queue
    check_models_folder(application.settings)
    served.start()
    try:
        wait_for_models(served, stop)
        application.work_on_jobs(application.settings.jobs.concurrency, stop, handler=application.run_job)
    finally:
        served.close()
        queue.close()
