"""``/v2``: the Open Inference Protocol, for voxport's models and for ONNX models of any kind.

A voxport model takes a whole volume, with ``spacing``, ``unit``, ``affine`` and run options as parameters of the
request, and gives a label map. With the parameter ``raw`` it takes single patches and gives logits. A model without a
card takes and gives the tensors that it declares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field, Strict, create_model
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ... import __version__
from ...contract.options import ARRAY, options_of
from ...contract.service import OPTION_FIELDS
from ...domain.errors import InputError, OutputError, UnknownModelError, UsageError
from ...domain.report import Unit
from ...ports.tensor_models import TensorModel
from ...ports.tensors import TensorSpec
from ...services.models.loading import LoadedModel
from ...services.models.registry import ServedModel
from ...services.segmentation.predict import array_volume
from .context import Context, RequestProgress, ServiceContext
from .routing import checked
from .v2_tensors import HEADER_LENGTH, IN_MEMORY, InferRequest, answer, described, read_request

_JSON, _BYTES = "application/json", "application/octet-stream"
VOLUME, LABELS, PROBABILITIES, IMAGE, LOGITS = "volume", "labels", "probabilities", "image", "logits"
# spacing and shape of a volume are free; any real type is taken where FP32 is declared
_VOLUME = TensorSpec(VOLUME, "float32", (None, None, None))
Arrays = Mapping[str, NDArray[Any]]


def _flat(value: object) -> object:
    """Numbers of a text with commas, as the protocol has single values only, or of nested lists."""
    return value.split(",") if isinstance(value, str) else np.array(value, dtype=object).reshape(-1).tolist()


Numbers = Annotated[list[Annotated[float, Strict(False)]], BeforeValidator(_flat)]


class _OwnParameters(BaseModel, extra="forbid", strict=True):
    spacing: Annotated[Numbers, Field(min_length=3, max_length=3)] | None = None
    affine: Annotated[Numbers, Field(min_length=16, max_length=16)] | None = None
    unit: Unit = "unknown"
    raw: bool = False
    binary_data_output: bool = False


# of a request for a voxport model
Parameters = create_model("Parameters", __base__=_OwnParameters, **OPTION_FIELDS)


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


# the protocol has an OpenAPI document of its own
router = APIRouter(prefix="/v2", include_in_schema=False)


@router.get("")
async def server() -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "voxport", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/health/ready")
async def ready(context: Context) -> Response:
    """Every model was loaded once."""
    return JSONResponse({"ready": context.models.ready}, 200 if context.models.ready else 503)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(context: Context, name: str, version: str | None = None) -> dict[str, Any]:
    """The tensors that a model takes and gives."""
    return await to_thread.run_sync(_metadata, context, name, version)


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(context: Context, name: str, version: str | None = None) -> Response:
    """The model is loaded."""
    found = await to_thread.run_sync(_find, context, name, version)
    is_ready = found.served is None or found.served.state == "ready"
    body = {"name": found.name, "version": found.version, "ready": is_ready}
    return JSONResponse(body, 200 if is_ready else 503)


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(context: Context, request: Request, name: str, version: str | None = None) -> Response:
    """Run a model on tensors; see the protocol for the body."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "expected a body without Content-Encoding; send it plain")
    found = await to_thread.run_sync(_find, context, name, version)
    scratch = context.application.settings.scratch_dir
    with SpooledTemporaryFile(IN_MEMORY, dir=str(scratch) if scratch else None) as body:
        try:
            async for chunk in request.stream():
                body.write(chunk)
        except OSError as error:
            raise OutputError.cannot_write("upload", error) from None
        length, most = request.headers.get(HEADER_LENGTH), context.settings.predict_max_voxels
        asked, inputs = await to_thread.run_sync(read_request, body, length, most, limiter=context.aside)
        run = partial(_run, context, found, asked, inputs)
        if found.tensors is not None:  # its calls share batches, which take a slot each
            outputs, parameters = await context.shared(request, run)
        else:
            outputs, parameters = await context.in_slot(request, run)
        pieces, head = answer(found.name, found.version, outputs, asked, parameters)
    headers = {} if head is None else {HEADER_LENGTH: str(head)}
    return Response(b"".join(pieces), media_type=_JSON if head is None else _BYTES, headers=headers)


def _find(context: ServiceContext, name: str, version: str | None) -> Found:
    """The model of this name; one with a card first. Raises UnknownModelError."""
    reference = name if version is None else f"{name}:{version}"
    try:
        served = context.find(reference)
    except UnknownModelError as unknown:
        models = context.application.tensor_models
        try:
            model = models.get(reference)
        except (UnknownModelError, UsageError):  # or there is no BentoML here
            raise unknown from None
        session = models.session(model)
        return Found(model.name, model.version, f"{session.name}_onnx", session.inputs, session.outputs, tensors=model)
    card = served.model.card
    labels = TensorSpec(LABELS, card.output.table.dtype.name, (None, None, None))
    probabilities = TensorSpec(PROBABILITIES, "float32", (card.output.channels, None, None, None))
    platform = "onnxruntime_onnx" if served.loaded is None else f"{served.loaded.runtime.name}_onnx"
    return Found(card.name, card.version, platform, [_VOLUME], [labels, probabilities], served=served)


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
    context: ServiceContext,
    found: Found,
    asked: InferRequest,
    inputs: Arrays,
    progress: RequestProgress,
    queued_seconds: float,
) -> tuple[Arrays, dict[str, Any]]:
    if found.tensors is not None:
        with context.metrics.tensors_timed(found.tensors.tag, found.platform.removesuffix("_onnx")):
            return context.application.tensor_models.run(found.tensors, inputs, asked.names), {}
    loaded = context.models.take(f"{found.name}:{found.version}")
    parameters: Any = checked(Parameters.model_validate, asked.parameters)
    if parameters.raw:
        with context.metrics.tensors_timed(loaded.model.card.reference, loaded.runtime.name):
            return _raw(loaded, asked, inputs), {}
    names = _outputs(asked, (LABELS, PROBABILITIES)) or [LABELS]
    volume = array_volume(
        _only(inputs, VOLUME),
        spacing=parameters.spacing,
        affine=None if parameters.affine is None else np.array(parameters.affine).reshape(4, 4),
        unit=parameters.unit,
    )
    options = options_of(parameters.model_dump(), memory_bytes=context.memory_bytes, names=ARRAY)
    case = context.application.predict_case([volume], loaded, options, progress, probabilities=PROBABILITIES in names)
    context.metrics.inferred(loaded, case.done, queued_seconds)
    outputs: dict[str, Any] = {LABELS: case.labels.array, PROBABILITIES: case.probabilities}
    warnings = {"warnings": "; ".join(case.warnings)} if case.warnings else {}
    return {name: outputs[name] for name in names}, warnings


def _raw(loaded: LoadedModel, asked: InferRequest, inputs: Arrays) -> Arrays:
    """Logits of a batch of patches, in the network's own axes."""
    batch = _only(inputs, IMAGE)
    _outputs(asked, (LOGITS,))
    edges = loaded.runtime.input_shape
    fits = batch.ndim == 5 and all(edge in (None, n) for edge, n in zip(edges, batch.shape, strict=True))
    if batch.dtype != np.float32 or not fits:
        wanted = ", ".join("any" if edge is None else str(edge) for edge in edges)
        got = f"{batch.dtype} {batch.shape}"
        raise InputError(IMAGE, expected=f"FP32 of shape ({wanted})", got=got, do="send patches of this form")
    return {LOGITS: loaded.runtime.infer(batch)}


def _only(inputs: Arrays, name: str) -> NDArray[Any]:
    if list(inputs) != [name]:
        got = ", ".join(key[:80] for key in inputs)
        raise InputError("inputs", expected=f"one input named {name}", got=got, do="correct the request")
    return inputs[name]


def _outputs(asked: InferRequest, known: Sequence[str]) -> list[str] | None:
    """The names of the wanted outputs. Raises InputError for one that is not known."""
    for name in asked.names or ():
        if name not in known:
            expected = f"outputs named {', '.join(known)}"
            raise InputError("outputs", expected=expected, got=name[:80], do="correct the request")
    return asked.names
