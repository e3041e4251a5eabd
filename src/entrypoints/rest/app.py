"""The REST application: routes over the container's use cases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

from fastapi import FastAPI

from ... import __version__
from ...container import Container
from ...services.scratch import clear_scratch
from .catalogue import catalogue_routes
from .desk import Desk
from .openapi import describe
from .predicting import predict_routes
from .routing import add_problem_handlers
from .segmenting import segment_routes

_ABOUT = """Masks on the right voxels, from verified ONNX models.

Every failure is a problem (RFC 9457) whose `detail` says what was expected, what came, and what to do."""


def create_app(container: Container) -> FastAPI:
    """The application over a wired container; its models are loaded from when it starts until it ends."""
    desk = Desk.of(container)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        clear_scratch(container.config.scratch_dir())
        desk.models.start()
        yield
        desk.models.close()

    # the pages of Swagger and Redoc would be fetched from elsewhere
    app = FastAPI(
        title="voxport",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.desk = desk
    for routes in (segment_routes, predict_routes, catalogue_routes):
        app.include_router(routes(desk))
    add_problem_handlers(app, desk.metrics, desk.private_paths)
    needs_key = bool(container.config.api_keys())
    app.openapi = lru_cache(maxsize=1)(lambda: describe(app, needs_key=needs_key))  # type: ignore[method-assign]
    return app
