"""``POST /predict``: an array in, labels and what belongs to them out, as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import Response

from ...domain.errors import InputError, LimitError, UsageError
from ...services.predict import Prediction
from ...services.prepare import RunOptions
from ...services.runtimes import LoadedModel
from ...services.statistics_file import statistics_mapping
from . import schemas, uploads
from .desk import Desk, RequestProgress
from .routing import JSON, MULTIPART, BodyRoute, body

# A number in JSON with its comma: -1.2345678901234567e-308
_JSON_BYTES_PER_VOXEL = 25
_FORM_BYTES = 2**16


@dataclass(frozen=True)
class _Asked:
    array: NDArray[Any]
    fields: schemas.PredictFields


def predict_routes(desk: Desk) -> APIRouter:
    """The route that takes an array."""
    router = APIRouter(route_class=BodyRoute, tags=["segment"])

    @router.post("/predict", response_model=schemas.Prediction, responses=schemas.PROBLEMS, openapi_extra=schemas.ARRAY)
    @body(JSON, MULTIPART)
    async def predict(request: Request) -> Response:
        """Segment an array (x, y, z), or channels first; files, and anything large, go to /segment."""
        if request.headers.get("content-type", "").lower().startswith(JSON):
            content = await _bounded_body(request, desk.settings.predict_max_voxels)
            asked = await to_thread.run_sync(partial(_from_json, content, desk.settings.predict_max_voxels))
        else:
            asked = await _from_form(request, desk.settings.predict_max_voxels)
        fields = asked.fields
        desk.models.find(fields.model)
        options = uploads.options_of(
            fields.overlap, fields.patch, fields.blending, fields.nan_as, fields.threshold, desk.memory_bytes
        )
        content = await desk.in_slot(request, partial(_predict, desk, asked, options))
        return Response(content, media_type=JSON)

    return router


async def _bounded_body(request: Request, max_voxels: int) -> bytes:
    limit, content = max_voxels * _JSON_BYTES_PER_VOXEL + _FORM_BYTES, bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise _too_large(f"more than {limit} bytes of JSON", max_voxels)
    return bytes(content)


def _from_json(content: bytes, max_voxels: int) -> _Asked:
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UsageError("body", expected="JSON", got=str(error)[:120], do="correct it") from None
    if not isinstance(data, dict) or "volume" not in data:
        raise UsageError("body", expected='{"volume": [[[...]]], ...}', got="no volume", do="send one")
    array = _array_of(data.pop("volume"))
    return _Asked(_checked(array, max_voxels), _fields(data))


def _array_of(nested: Any) -> NDArray[Any]:
    try:
        array = np.array(nested)
    except (ValueError, OverflowError):
        array = np.array(None)
    if array.dtype.kind not in "iufb":
        do = "make all rows equally long, of numbers only"
        raise InputError("volume", expected="a nested list of numbers", got="rows that differ, or no numbers", do=do)
    return array


async def _from_form(request: Request, max_voxels: int) -> _Asked:
    async with request.form(max_files=1, max_fields=20, max_part_size=_FORM_BYTES) as form:
        upload = form.get("volume")
        if not isinstance(upload, UploadFile):
            raise UsageError("volume", expected="a file part that holds .npy", got="none", do="send one")
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        return _Asked(await to_thread.run_sync(partial(_from_npy, upload, max_voxels)), _fields(fields))


def _from_npy(upload: UploadFile, max_voxels: int) -> NDArray[Any]:
    """The array of an ``.npy`` file, its size checked before its values are read; pickled objects are refused."""
    file = upload.file
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or dtype.kind not in "iufb" or dtype.itemsize > 8:
            do = "save real numbers with numpy.save"
            raise InputError("volume", expected="an array of real numbers", got=str(dtype), do=do)
        _check_size(math.prod(shape), max_voxels)
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except (ValueError, EOFError, TypeError, SyntaxError, OverflowError) as error:
        got = " ".join(str(error).split())[:120] or "something else"
        raise InputError("volume", expected="an .npy file", got=got, do="write it with numpy.save") from None


def _checked(array: NDArray[Any], max_voxels: int) -> NDArray[Any]:
    _check_size(array.size, max_voxels)
    return array


def _check_size(values: int, max_voxels: int) -> None:
    if values > max_voxels:
        raise _too_large(f"{values}", max_voxels)


def _too_large(got: str, max_voxels: int) -> LimitError:
    do = "send it as NIfTI to /segment, which takes volumes of any size"
    return LimitError("volume", expected=f"at most {max_voxels} values", got=got, do=do)


def _fields(data: Mapping[str, Any]) -> schemas.PredictFields:
    try:
        return schemas.PredictFields.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise UsageError(where, expected="a valid field", got=first["msg"][:120].lower(), do="correct it") from None


def _predict(desk: Desk, asked: _Asked, options: RunOptions, progress: RequestProgress, queued_seconds: float) -> bytes:
    fields = asked.fields
    loaded = desk.models.take(fields.model)
    found = desk.container.predict()(
        asked.array, fields.spacing, fields.unit, loaded, options, progress, probabilities=fields.probabilities
    )
    desk.metrics.scored(loaded, found.done, queued_seconds)
    answer = _mapping(found, loaded, queued_seconds)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


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
