"""``POST /predict``: an array in; labels, statistics and probabilities out, as one JSON object."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import orjson
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.responses import Response

from ...contract import service as schemas
from ...contract.options import ARRAY, options_of
from ...domain.errors import OutputError, UsageError
from ...domain.report import statistics_mapping
from ...services.models.loading import LoadedModel
from ...services.segmentation.predict import Prediction, array_volume
from . import uploads
from .arrays import FIELD_BYTES, json_bytes, parse_json, parse_npy, too_large
from .context import Context, RequestProgress, ServiceContext
from .openapi import GUARDED_KINDS, RUN_KINDS, VOLUME, examples, problems
from .routing import JSON, MULTIPART, BodyRoute, body, checked

_ONE_VOXEL_EACH = {"volume": [[[0, 40], [80, 120]], [[10, 50], [90, 130]]], "spacing": [1.0, 1.0, 5.0], "unit": "um"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {"$ref": f"#/components/schemas/{schemas.ArrayBody.__name__}"},
                "examples": examples(nested_lists=_ONE_VOXEL_EACH),
            },
            MULTIPART: {
                "schema": {"$ref": "#/components/schemas/ArrayForm"},
                "examples": examples(a_file_of_numpy={"volume": VOLUME, "spacing": "1,1,5", "unit": "um"}),
            },
        },
    }
}
Asked = tuple[NDArray[Any], schemas.ArrayFields]

router = APIRouter(route_class=BodyRoute, tags=["segment"], responses=problems(*GUARDED_KINDS, *RUN_KINDS))


@router.post("/predict", response_model=schemas.Prediction, openapi_extra=_BODY, summary="Segment an array")
@body(JSON, MULTIPART, slot=True)
async def predict(request: Request, context: Context) -> Response:
    """Segment an array (x, y, z), or channels first; files, and anything large, go to /segment."""
    is_json = request.headers["content-type"].lower().startswith(JSON)
    array, fields = await (_from_json if is_json else _from_form)(request, context)
    context.find(fields.model)
    options = options_of(fields.model_dump(), memory_bytes=context.memory_bytes, names=ARRAY)

    def run(progress: RequestProgress, queued_seconds: float) -> bytes:
        loaded = context.models.take(fields.model)
        volume = array_volume(array, spacing=fields.spacing, unit=fields.unit)
        found = context.application.predict_case(
            [volume], loaded, options, progress, probabilities=fields.probabilities
        )
        context.metrics.inferred(loaded, found.done, queued_seconds)
        return orjson.dumps(_mapping(found, loaded, queued_seconds), option=orjson.OPT_SERIALIZE_NUMPY)

    return Response(await context.in_slot(request, run), media_type=JSON)


async def _from_json(request: Request, context: ServiceContext) -> Asked:
    most = context.settings.predict_max_voxels
    limit, content = json_bytes(most), bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise too_large(f"more than {limit} bytes of JSON", most)
    array, others = await to_thread.run_sync(partial(parse_json, bytes(content), most), limiter=context.aside)
    # a form has texts only; in JSON, "0.5" is not a number
    fields = partial(schemas.PredictFields.model_validate_json, strict=True)
    return array, checked(fields, orjson.dumps(others))


async def _from_form(request: Request, context: ServiceContext) -> Asked:
    try:
        form = await request.form(max_files=1, max_fields=20, max_part_size=FIELD_BYTES)
    except OSError as error:
        raise OutputError.cannot_write("upload", error) from None
    try:
        uploads.check_form(form, single=("volume", *schemas.PredictFields.model_fields))
        upload = form.get("volume")
        if not isinstance(upload, UploadFile):
            raise UsageError("volume", expected="a file part that holds .npy", got="none", do="send one")
        read = partial(parse_npy, upload.file, context.settings.predict_max_voxels)
        array = await to_thread.run_sync(read, limiter=context.aside)
    finally:
        await form.close()
    fields: dict[str, Any] = {name: value for name, value in form.items() if name != "volume"}
    if "spacing" in fields:
        fields["spacing"] = str(fields["spacing"]).split(",")
    return array, checked(schemas.PredictFields.model_validate, fields)


def _mapping(found: Prediction, loaded: LoadedModel, queued_seconds: float) -> dict[str, Any]:
    card, runtime, labels = loaded.model.card, loaded.runtime, found.labels
    answer = {
        "segmentation": np.ascontiguousarray(labels.array),
        "shape": list(labels.grid.shape),
        "labels": [{"value": x.value, "name": x.name, "colour": x.colour} for x in labels.table.labels],
        "statistics": statistics_mapping(found.done.statistics, labels.grid),
        "model": {"name": card.name, "version": card.version, "sha256": loaded.model.sha256},
        "runtime": {"name": runtime.name, "device": runtime.device, "precision": runtime.precision},
        "timings": {"queued": queued_seconds, **found.done.seconds},
        "tiles": found.done.prepared.plan.tile_count,
        "warnings": list(found.done.warnings),
    }
    if found.probabilities is not None:
        answer["probabilities"] = np.ascontiguousarray(found.probabilities)
    return answer
