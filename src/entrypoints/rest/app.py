"""The REST application: routes over the container's use cases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ... import __version__
from ...container import Container
from . import schemas
from .catalogue import catalogue_routes
from .desk import Desk
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
        desk.models.start()
        yield
        desk.models.close()

    # the pages of Swagger and Redoc would be fetched from elsewhere
    app = FastAPI(
        title="voxport", version=__version__, description=_ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.desk = desk
    for routes in (segment_routes, predict_routes, catalogue_routes):
        app.include_router(routes(desk))
    add_problem_handlers(app, desk.metrics, desk.private_paths)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with problems in place of its own shape of errors, and with keys."""
    if app.openapi_schema is None:
        described = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = described["components"]
        for model in (schemas.ProblemDetails, schemas.ArrayBody):
            components["schemas"][model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, operations in described["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in ("/livez", "/readyz") else [{}, {"bearer": []}, {"key": []}]
        app.openapi_schema = described
    return app.openapi_schema
