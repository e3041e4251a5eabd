"""The REST application."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

from anyio import to_thread
from fastapi import Depends, FastAPI

from ... import __version__
from ...application import Application
from ...services.jobs.worker import in_a_slot, keep_working
from ..json_log import check_models_folder
from . import api_page, catalogue, job_results, jobs, monailabel, predicting, segmenting, v2
from .context import ServiceContext
from .openapi import describe
from .routing import HeadAsGet, add_problem_handlers, check_query
from .stopping import stop_on_signals

_ABOUT = """Masks on the right voxels, from verified ONNX models.

Every failure is a problem (RFC 9457) whose `detail` says what was expected, what came, and what to do."""


_ROUTERS = (
    segmenting.router,
    predicting.router,
    catalogue.router,
    catalogue.health_router,
    catalogue.probe_router,
    jobs.router,
    job_results.router,
    v2.router,
    api_page.router,
)


def create_app(application: Application, *, runs_jobs: bool = False) -> FastAPI:
    """Build the service of an application. Its models are loaded for as long as it runs.

    Args:
        application: with the settings and the use cases.
        runs_jobs: whether this process is also a worker. One process can be one worker.
    """
    context = ServiceContext(application)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        application.work_folders.clear()
        check_models_folder(application.settings)
        context.models.start()
        await context.jobs.open()
        working = threading.Thread(target=_run_jobs, args=(context,), name="voxport-jobs", daemon=True)
        with stop_on_signals(context.stop, context.draining.begin):
            if runs_jobs:
                working.start()
            yield
        if runs_jobs:
            await to_thread.run_sync(working.join)
        context.models.close()
        await context.jobs.close()

    # FastAPI's own pages would load scripts from other servers
    app = FastAPI(
        title="voxport",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(check_query)],
    )
    app.state.context = context
    for router in (*_ROUTERS, *([monailabel.router] if context.settings.monailabel else [])):
        app.include_router(router)
    api_page.add_files(app)
    add_problem_handlers(app, context.metrics, context.private_paths)
    app.add_middleware(HeadAsGet)
    needs_key = bool(application.settings.api_keys)
    app.openapi = lru_cache(maxsize=1)(lambda: describe(app, needs_key=needs_key))  # type: ignore[method-assign]
    return app


def _run_jobs(context: ServiceContext) -> None:
    """Run jobs beside requests, in the same slots, so that memory is bounded for both together."""
    application = context.application
    # more jobs than slots would wait here, where no other worker can take them
    at_once = min(application.settings.jobs.concurrency, context.settings.slots)
    handler = in_a_slot(application.run_job, context.slots)
    keep_working(lambda stop: application.work_on_jobs(at_once, stop, handler=handler), context.models, context.stop)
