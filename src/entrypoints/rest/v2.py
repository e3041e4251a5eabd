"""``/v2``: the Open Inference Protocol, for voxport's models and for ONNX models of any kind.

A voxport model takes a whole volume, with ``spacing``, ``unit``, ``affine`` and run options as parameters of the
request, and gives a label map. With the parameter ``raw`` it takes single patches and gives logits. A model without a
card takes and gives the tensors that it declares.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ... import __version__
from ...contract.options import REMOTE, options_of
from ...domain.errors import InputError, OutputError, UnknownModelError, UsageError
from ...domain.run import RunOptions
from ...ports.tensor_models import TensorModel
from ...ports.tensors import TensorSpec
from ...services.models.loading import LoadedModel
from ...services.models.registry import ServedModel
from ...services.segmentation.predict import array_volume
from .context import RequestProgress, ServiceContext
from .v2_tensors import HEADER_LENGTH, Body, InferRequest, answer, described, read_request

_IN_MEMORY = 2**20  # bytes of a body that make no file
_JSON, _BYTES = "application/json", "application/octet-stream"
VOLUME, LABELS, PROBABILITIES, IMAGE, LOGITS = "volume", "labels", "probabilities", "image", "logits"
_PARAMETERS = {"spacing", "unit", "affine", "raw", "binary_data_output", *REMOTE}
# spacing and shape of a volume are free; any real type is taken where FP32 is declared
_VOLUME = TensorSpec(VOLUME, "float32", (None, None, None))
Run = Callable[[RequestProgress, float], tuple[Mapping[str, NDArray[Any]], dict[str, Any]]]


@dataclass(frozen=True)
class Found:
    """A model in the protocol's words, and how it is run."""

    name: str
    version: str
    platform: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    served: ServedModel | None = None
    tensors: TensorModel | None = None


def v2_routes(context: ServiceContext) -> APIRouter:
    """The routes of the protocol."""
    # the protocol has an OpenAPI document of its own
    router = APIRouter(prefix="/v2", include_in_schema=False)

    @router.get("", summary="Server metadata")
    async def server() -> Response:
        """The server's name, version and extensions."""
        return JSONResponse({"name": "voxport", "version": __version__, "extensions": ["binary_tensor_data"]})

    @router.get("/health/live", summary="Liveness, in the protocol")
    async def live() -> Response:
        """The process answers."""
        return JSONResponse({"live": True})

    @router.get("/health/ready", summary="Readiness, in the protocol")
    async def ready() -> Response:
        """Every model was loaded once."""
        return JSONResponse({"ready": context.models.ready}, 200 if context.models.ready else 503)

    @router.get("/models/{name}", summary="Model metadata")
    @router.get("/models/{name}/versions/{version}", summary="Metadata of a version")
    async def metadata(name: str, version: str | None = None) -> Response:
        """The tensors that a model takes and gives."""
        return JSONResponse(await to_thread.run_sync(_metadata, context, name, version))

    @router.get("/models/{name}/ready", summary="Readiness of a model")
    @router.get("/models/{name}/versions/{version}/ready", summary="Readiness of a version")
    async def model_ready(name: str, version: str | None = None) -> Response:
        """The model is loaded."""
        found = await to_thread.run_sync(_find, context, name, version)
        is_ready = found.served is None or found.served.state == "ready"
        body = {"name": found.name, "version": found.version, "ready": is_ready}
        return JSONResponse(body, 200 if is_ready else 503)

    @router.post("/models/{name}/infer", summary="Infer")
    @router.post("/models/{name}/versions/{version}/infer", summary="Infer with a version")
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Run a model on tensors; see the protocol for the body."""
        return await _infer(context, request, name, version)

    return router


async def _infer(context: ServiceContext, request: Request, name: str, version: str | None) -> Response:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "expected a body without Content-Encoding; send it plain")
    found = await to_thread.run_sync(_find, context, name, version)
    async with _received(request, context) as body:
        length, most = request.headers.get(HEADER_LENGTH), context.settings.predict_max_voxels
        asked = await to_thread.run_sync(read_request, body, length, most, limiter=context.aside)
        run = partial(_run, context, found, asked)
        if found.tensors is not None:  # its calls share batches, which take a slot each
            outputs, parameters = await context.shared(request, run)
        else:
            outputs, parameters = await context.in_slot(request, run)
        pieces, head = answer(found.name, found.version, outputs, asked, parameters)
    headers = {} if head is None else {HEADER_LENGTH: str(head)}
    return Response(b"".join(pieces), media_type=_JSON if head is None else _BYTES, headers=headers)


@asynccontextmanager
async def _received(request: Request, context: ServiceContext) -> AsyncIterator[Body]:
    """Receive the request's body: into memory if it is small, else into a file. Raises OutputError."""
    begun, chunks = BytesIO(), request.stream()
    async for chunk in chunks:
        begun.write(chunk)
        if begun.tell() > _IN_MEMORY:
            break
    else:
        yield begun
        return
    async with context.request_folder("run") as folder:
        try:
            with (folder / "body").open("wb") as file:
                file.write(begun.getbuffer())
                async for chunk in chunks:
                    file.write(chunk)
        except OSError as error:
            raise OutputError.cannot_write("upload", error) from None
        with (folder / "body").open("rb") as body:
            yield body


def _find(context: ServiceContext, name: str, version: str | None) -> Found:
    """The model of this name; one with a card first. Raises UnknownModelError."""
    try:
        served = context.models.find(name if version is None else f"{name}:{version}")
    except UnknownModelError as unknown:
        return _tensor_model(context, name, version, unknown)
    card = served.model.card
    labels = TensorSpec(LABELS, card.output.table.dtype.name, (None, None, None))
    probabilities = TensorSpec(PROBABILITIES, "float32", (card.output.channels, None, None, None))
    platform = "onnxruntime_onnx" if served.loaded is None else f"{served.loaded.runtime.name}_onnx"
    return Found(card.name, card.version, platform, [_VOLUME], [labels, probabilities], served=served)


def _tensor_model(context: ServiceContext, name: str, version: str | None, unknown: UnknownModelError) -> Found:
    models = context.application.tensor_models
    try:
        model = models.find(name, version)
    except (UnknownModelError, UsageError):  # or there is no BentoML here
        raise unknown from None
    session = models.session(model)
    return Found(model.name, model.version, f"{session.name}_onnx", session.inputs, session.outputs, tensors=model)


def _metadata(context: ServiceContext, name: str, version: str | None) -> dict[str, Any]:
    found = _find(context, name, version)
    if found.served is not None:
        versions = [m.model.card.version for m in context.models.catalogue.models if m.model.card.name == found.name]
    else:
        versions = [m.version for m in context.application.tensor_models.list() if m.name == found.name]
    return {
        "name": found.name,
        "versions": versions,
        "platform": found.platform,
        "inputs": [described(spec) for spec in found.inputs],
        "outputs": [described(spec) for spec in found.outputs],
    }


def _run(
    context: ServiceContext, found: Found, asked: InferRequest, progress: RequestProgress, queued_seconds: float
) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    if found.tensors is not None:
        with context.metrics.tensors_timed(found.tensors.tag, found.platform.removesuffix("_onnx")):
            return context.application.tensor_models.run(found.tensors, asked.inputs, asked.names), {}
    loaded = context.models.take(f"{found.name}:{found.version}")
    unknown = [name for name in asked.parameters if name not in _PARAMETERS]
    if unknown:
        expected = f"parameters named {', '.join(sorted(_PARAMETERS))}"
        raise UsageError(f"parameters.{unknown[0][:80]}", expected=expected, got="another", do="leave it out")
    if asked.parameters.get("raw") is True:
        with context.metrics.tensors_timed(loaded.model.card.reference, loaded.runtime.name):
            return _raw(loaded, asked)
    return _segmented(context, loaded, asked, progress, queued_seconds)


def _raw(loaded: LoadedModel, asked: InferRequest) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    """Logits of a batch of patches, in the network's own axes."""
    batch = _only(asked, IMAGE)
    _check_outputs(asked, (LOGITS,))
    edges = loaded.runtime.input_shape
    fits = batch.ndim == 5 and all(edge in (None, n) for edge, n in zip(edges, batch.shape, strict=True))
    if batch.dtype != np.float32 or not fits:
        wanted = ", ".join("any" if edge is None else str(edge) for edge in edges)
        got = f"{batch.dtype} {batch.shape}"
        raise InputError(IMAGE, expected=f"FP32 of shape ({wanted})", got=got, do="send patches of this form")
    return {LOGITS: loaded.runtime.infer(batch)}, {}


def _segmented(
    context: ServiceContext,
    loaded: LoadedModel,
    asked: InferRequest,
    progress: RequestProgress,
    queued_seconds: float,
) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    """The label map of a volume, and probabilities if they are asked for."""
    array = _only(asked, VOLUME)
    names = _check_outputs(asked, (LABELS, PROBABILITIES)) or [LABELS]
    parameters = asked.parameters
    volume = array_volume(
        array,
        spacing=_numbers(parameters, "spacing", 3),
        affine=_affine(parameters),
        unit=str(parameters.get("unit", "unknown")),
    )
    options = _options(parameters, context.memory_bytes)
    found = context.application.predict_case([volume], loaded, options, progress, probabilities=PROBABILITIES in names)
    context.metrics.inferred(loaded, found.done, queued_seconds)
    outputs: dict[str, NDArray[Any]] = {LABELS: found.labels.array}
    if found.probabilities is not None:
        outputs[PROBABILITIES] = found.probabilities
    warnings = {"warnings": "; ".join(found.done.warnings)} if found.done.warnings else {}
    return {name: outputs[name] for name in names}, warnings


def _only(asked: InferRequest, name: str) -> NDArray[Any]:
    if list(asked.inputs) != [name]:
        got = ", ".join(key[:80] for key in asked.inputs)
        raise InputError("inputs", expected=f"one input named {name}", got=got, do="correct the request")
    return asked.inputs[name]


def _check_outputs(asked: InferRequest, known: Sequence[str]) -> list[str] | None:
    for name in asked.names or ():
        if name not in known:
            expected = f"outputs named {', '.join(known)}"
            raise InputError("outputs", expected=expected, got=name[:80], do="correct the request")
    return asked.names


def _options(parameters: Mapping[str, Any], memory_bytes: int | None) -> RunOptions:
    given = {name: parameters.get(name) for name in REMOTE}
    for name in ("overlap", "threshold", "nan_as"):
        if given[name] is not None and type(given[name]) not in (int, float):
            raise UsageError(name, expected="a number", got=str(given[name])[:40], do="correct it")
    texts = {name: str(given[name])[:80] for name in ("patch", "blending") if given[name] is not None}
    return options_of({**given, **texts}, memory_bytes=memory_bytes)


def _affine(parameters: Mapping[str, Any]) -> NDArray[np.float64] | None:
    values = _numbers(parameters, "affine", 16)
    return None if values is None else np.array(values, np.float64).reshape(4, 4)


def _numbers(parameters: Mapping[str, Any], name: str, count: int) -> list[float] | None:
    """A parameter as numbers: a list (of lists), or a text with commas. The protocol itself has single values only."""
    value = parameters.get(name)
    if value is None:
        return None
    try:
        parts = value.split(",") if isinstance(value, str) else np.array(value, dtype=object).reshape(-1).tolist()
        numbers = [float(part) for part in parts]
    except (ValueError, TypeError):
        numbers = []
    if len(numbers) != count:
        raise UsageError(name, expected=f"{count} numbers", got=str(value)[:80], do="separate them by commas")
    return numbers
