"""The served models, and the health of the service."""

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
from .context import Context, ServiceContext
from .openapi import GUARDED_KINDS, PROBE_KINDS, problems

ModelName = Annotated[str, PathParameter(description="NAME or NAME:VERSION", examples=["two-photon-vessels"])]


router = APIRouter(tags=["models"], responses=problems(*GUARDED_KINDS))
health_router = APIRouter(tags=["models", "health"], responses=problems(*GUARDED_KINDS))
probe_router = APIRouter(tags=["models", "health"], responses=problems(*PROBE_KINDS))


@health_router.get("/", response_model=schemas.Signpost, summary="Signpost")
async def signpost(request: Request) -> Response:
    """The service's main paths."""
    known = {"document": "openapi.json", "health": "health", "models": "v1/models", "segment": "segment"}
    paths = {name: f"{prefix_of(request.scope)}/{path}" for name, path in {**known, "jobs": "v1/jobs"}.items()}
    return JSONResponse({"service": "voxport", "version": __version__, **paths})


@router.get("/v1/models", response_model=schemas.Models, summary="Models")
async def models(context: Context) -> Response:
    """The models that are served, and files that cannot be."""
    catalogue = context.models.catalogue
    return JSONResponse(
        {
            "default": catalogue.default,
            "models": [_model(context, m, catalogue) for m in catalogue.models],
            "broken": [{"name": b.name, "reason": context.public(b.reason)} for b in catalogue.broken],
        }
    )


@router.get(
    "/v1/models/{name}",
    response_model=schemas.ModelDetails,
    responses=problems("unknown-model"),
    summary="One model",
)
async def model(context: Context, name: ModelName) -> Response:
    """One model, by NAME or NAME:VERSION, with its card."""
    return JSONResponse(_details(context, context.find(name)))


@health_router.get(
    "/health",
    response_model=schemas.Health,
    responses={503: {"description": "The default model cannot be used.", "model": schemas.Health}},
    summary="Health",
)
async def health(context: Context) -> Response:
    """What is served, and every fault."""
    answer = _health(context, await context.jobs.stats())
    return JSONResponse(answer, 503 if answer["status"] == "unavailable" else 200)


@health_router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format."}},
    summary="Metrics",
)
async def metrics(context: Context) -> Response:
    """Measurements in Prometheus' text format."""
    queue = await context.jobs.stats()
    shown = await to_thread.run_sync(context.metrics.shown, queue)
    return Response(shown, media_type=CONTENT_TYPE_LATEST)


@probe_router.get("/livez", response_model=schemas.Alive, summary="Liveness")
async def livez() -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


@probe_router.get("/readyz", response_model=schemas.Alive, responses=problems("busy"), summary="Readiness")
async def readyz(context: Context) -> Response:
    """Every model is loaded, has inferred a dummy input, and agrees with its certificate."""
    if not context.models.ready:
        got = "; ".join(_reasons(context)) or "models that are still being loaded"
        raise BusyError("service", expected="every model ready", got=got, retry_after_seconds=5)
    return JSONResponse({"status": "ok"})


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


def _details(context: ServiceContext, served: ServedModel) -> dict[str, Any]:
    runtime = capacity = None
    if served.loaded is not None:
        runtime, resources = served.loaded.runtime, context.application.resources
        speed = served.seconds_per_voxel
        capacity = asdict(capacity_of(served.loaded, speed, context.memory_bytes, resources=resources))
    return {
        **_model(context, served, context.models.catalogue),
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
    listed = [_model(context, m, catalogue) for m in catalogue.models]
    for certificate in (entry["certificate"] for entry in listed if entry["certificate"] is not None):
        del certificate["probes"]
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
    catalogue = context.models.catalogue
    missing = [] if catalogue.default_missing is None else [catalogue.default_missing]
    models = [
        f"{m.reference} is still being loaded" if m.reason is None else m.reason
        for m in catalogue.models
        if m.state != "ready"
    ]
    return [context.public(reason) for reason in (*missing, *models, *(b.reason for b in catalogue.broken))]
