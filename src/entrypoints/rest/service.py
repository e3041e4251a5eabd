"""The BentoML service: ``bentoml serve voxport.entrypoints.rest.service:service``, or ``voxport serve``."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp
from typing import Any

import uvicorn.config

# for the processes that BentoML starts: glibc keeps freed memory for each thread, and any thread may infer
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

from ...application import Application
from ...ports.locks import Locks
from ..json_log import announce, log_as_json
from .app import create_app
from .connections import timed_protocol
from .keys import parse_keys
from .shield import Shield, access_logger
from .stopping import stop_while_starting

# BentoML's own limit is later: voxport's answers with a problem and stops the run
_GRACE_SECONDS = 60
_METRICS, _LOCK = "voxport-metrics-", ".lock"


def create_service() -> Any:
    """A BentoML service with the settings of this environment."""
    log_as_json()
    application = Application.build()
    bentoml = application.bentoml
    index = bentoml.server_context.worker_index
    if index is None:  # this process starts the workers
        stop_while_starting()
        own_metrics_folder(application.locks)
        if (hint := application.tuning_hint()) is not None:
            announce(hint)
    else:
        protocols: dict[str, Any] = uvicorn.config.HTTP_PROTOCOLS
        protocols["auto"] = timed_protocol(application.settings.serving.silence_seconds)
    # only the first worker runs jobs, so the number of jobs at a time is that of the settings
    app = create_app(application, runs_jobs=index == 1 and application.settings.jobs.worker)
    settings = app.state.context.settings

    @bentoml.service(
        name="voxport",
        workers=settings.workers,
        traffic={"timeout": settings.time_limit_seconds + _GRACE_SECONDS},
        logging={"access": {"enabled": False}},
        metrics={"enabled": False},  # they would store every requested path
    )
    @bentoml.asgi_app(app, path="/")
    class Voxport:
        """Segmentation of volumes by verified ONNX models."""

    made: Any = Voxport
    keys = parse_keys([key.get_secret_value() for key in application.settings.api_keys])
    made.add_asgi_middleware(
        Shield,
        api=app,
        settings=settings,
        keys=keys,
        log=access_logger(),
        refused=app.state.context.metrics.refused,
        draining=app.state.context.draining,
    )
    return made


def own_metrics_folder(locks: Locks) -> None:
    """Give the processes of this service a Prometheus folder of their own, deleted when the service ends.

    BentoML's default is one for all services of a user, which it empties whenever one of them starts. The folder is
    locked by its process; those of killed services are deleted.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer

    for lock in Path(gettempdir()).glob(f"{_METRICS}*/{_LOCK}"):
        with suppress(OSError), locks.hold(lock, wait=False) as held:
            if held:
                rmtree(lock.parent, ignore_errors=True)
    folder, until_exit = Path(mkdtemp(prefix=_METRICS)), ExitStack()
    until_exit.enter_context(locks.hold(folder / _LOCK))
    until_exit.callback(rmtree, folder, ignore_errors=True)
    atexit.register(until_exit.close)
    BentoMLContainer.prometheus_multiproc_dir.set(str(folder))


service = create_service()
