"""Which models are served, and whether the service is well."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ... import __version__
from ...contract import service as schemas
from ...domain.cards.writing import write_card, write_certificate
from ...domain.errors import BusyError
from ...ports.job_queue import QueueStats
from ...services.models.registry import Catalogue, ServedModel
from ...services.segmentation.estimate import capacity_of
from ...services.segmentation.report import runtime_report
from ..public_address import prefix_of
from . import openapi
from .context import ServiceContext

ModelName = Annotated[str, PathParameter(description="NAME or NAME:VERSION", examples=["two-photon-vessels"])]


def catalogue_routes(context: ServiceContext) -> APIRouter:
    """The routes that tell of models and health."""
    router = APIRouter(tags=["models"])

    @router.get("/", response_model=schemas.Signpost, responses=openapi.LISTED, tags=["health"], summary="Signpost")
    async def signpost(request: Request) -> Response:
        """Where to go, for who opens the service's bare address."""
        known = {"document": "/openapi.json", "health": "/health", "models": "/v1/models"}
        known |= {"segment": "/segment", "jobs": "/v1/jobs"}
        paths = {name: prefix_of(request.scope) + path for name, path in known.items()}
        return JSONResponse({"service": "voxport", "version": __version__, **paths})

    @router.get("/v1/models", response_model=schemas.Models, responses=openapi.LISTED, summary="Models")
    async def models() -> Response:
        """The models that are served, and files that cannot be."""
        catalogue = context.models.catalogue
        return JSONResponse(
            {
                "default": catalogue.default,
                "models": [_model(context, m, catalogue) for m in catalogue.models],
                "broken": [{"name": b.name, "reason": context.public(b.reason)} for b in catalogue.broken],
            }
        )

    @router.get("/v1/models/{name}", response_model=schemas.ModelDetails, responses=openapi.NAMED, summary="One model")
    async def model(name: ModelName) -> Response:
        """One model, by NAME or NAME:VERSION, with its card."""
        served = context.models.find(name)
        return JSONResponse(_details(context, served, context.models.catalogue))

    @router.get("/health", response_model=schemas.Health, responses=openapi.HEALTH, tags=["health"], summary="Health")
    async def health() -> Response:
        """What serves, and what is wrong with it."""
        answer = _health(context, await context.jobs.stats())
        return JSONResponse(answer, 503 if answer["status"] == "unavailable" else 200)

    @router.get(
        "/metrics", response_class=PlainTextResponse, responses=openapi.METRICS, tags=["health"], summary="Metrics"
    )
    async def metrics() -> Response:
        """What is measured, in Prometheus' text format."""
        queue = await context.jobs.stats()
        shown = await to_thread.run_sync(context.metrics.shown, queue)
        return Response(shown, media_type=CONTENT_TYPE_LATEST)

    @router.get("/livez", response_model=schemas.Alive, responses=openapi.ALIVE, tags=["health"], summary="Liveness")
    async def livez() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", response_model=schemas.Alive, responses=openapi.READY, tags=["health"], summary="Readiness")
    async def readyz() -> Response:
        """Every model is loaded, has scored a dummy input, and is the one of its certificate."""
        if not context.models.ready:
            got = "; ".join(_reasons(context)) or "models that are still being loaded"
            raise BusyError("service", expected="every model ready", got=got, retry_after_seconds=5)
        return JSONResponse({"status": "ok"})

    return router


def _model(context: ServiceContext, served: ServedModel, catalogue: Catalogue) -> dict[str, Any]:
    card = served.model.card
    return {
        "name": card.name,
        "version": card.version,
        "reference": served.reference,
        "description": card.description,
        "default": served.reference == catalogue.default,
        "status": served.state,
        "reason": None if served.reason is None else context.public(served.reason),
        "certificate": None if card.parity is None else write_certificate(card.parity),
    }


def _without_samples(model: dict[str, Any]) -> dict[str, Any]:
    certificate = model["certificate"]
    if certificate is not None:
        del certificate["probes"]
    return model


def _details(context: ServiceContext, served: ServedModel, catalogue: Catalogue) -> dict[str, Any]:
    loaded, runtime, capacity = served.loaded, None, None
    if loaded is not None:
        runtime = loaded.runtime
        capacity = asdict(
            capacity_of(loaded, served.seconds_per_voxel, context.memory_bytes, resources=context.application.resources)
        )
    return {
        **_model(context, served, catalogue),
        "sha256": served.model.sha256,
        "weights_sha256": served.model.weights_sha256,
        "runtime": runtime and runtime_report(runtime).mapping(),
        "card": write_card(served.model.card),
        "capacity": capacity,
    }


def _health(context: ServiceContext, queue: QueueStats | None) -> dict[str, Any]:
    catalogue, reasons = context.models.catalogue, _reasons(context)
    if queue is None:
        reasons.append("the job queue cannot be reached")
    default = next((m for m in catalogue.models if m.reference == catalogue.default), None)
    runtime = None if default is None or default.loaded is None else default.loaded.runtime
    listed = [_without_samples(_model(context, m, catalogue)) for m in catalogue.models]
    own = next((m for m in listed if m["default"]), None)
    return {
        "status": "unavailable" if runtime is None else "degraded" if reasons else "ok",
        "version": __version__,
        "model": own and own["name"],
        "model_version": own and own["version"],
        "runtime": runtime and runtime.name,
        "device": runtime and runtime.device,
        "precision": runtime and runtime.precision,
        "certificate": own and own["certificate"],
        "models": listed,
        "reasons": reasons,
        "in_flight": context.slots.held,
        "queued": context.slots.waiting,
        "jobs": {
            "queue": "unavailable" if queue is None else "ok",
            "queued": queue and queue.counts["queued"],
            "running": queue and queue.counts["running"],
            "workers": queue and queue.workers,
        },
    }


def _reasons(context: ServiceContext) -> list[str]:
    """What keeps the service from being well, a sentence each."""
    catalogue = context.models.catalogue
    missing = [] if catalogue.default_missing is None else [catalogue.default_missing]
    models = [
        f"{m.reference} is still being loaded" if m.reason is None else m.reason
        for m in catalogue.models
        if m.state != "ready"
    ]
    return [context.public(reason) for reason in (*missing, *models, *(b.reason for b in catalogue.broken))]
