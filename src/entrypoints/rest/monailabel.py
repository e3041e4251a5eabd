"""MONAI Label's routes, for 3D Slicer and MITK: volumes are uploaded once as sessions, and segmented by models.

Trainers, strategies of active learning and a datastore of labels do not exist here, and their routes are not found.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from pydantic import BaseModel, create_model
from starlette.datastructures import Headers
from starlette.responses import FileResponse, JSONResponse, Response

from ... import __version__
from ...contract.options import ARRAY, options_of
from ...contract.reading import short
from ...contract.service import OPTION_FIELDS
from ...domain.errors import InputError, UsageError
from ...domain.labels.label_map import Label
from ...domain.run import result_files
from ...domain.volume_names import SENT_MASKS, USUAL_FORMAT, MaskFormat, mask_format
from ...services.jobs.kept_volumes import KeptVolumes
from ...services.models.registry import ServedModel
from . import uploads
from .context import Context, ServiceContext
from .job_access import principal
from .keys import holder, parse_keys
from .problems import ProblemError
from .routing import MULTIPART, BodyRoute, body, checked
from .segmenting import Case

_USUAL_SECONDS, _LONGEST_SECONDS = 3600, 86400
_FORM = "application/x-www-form-urlencoded"
_LONGEST_PARAMS = 65536
Answer = Literal["all", "image", "json", "dicom_seg"]
Id = Annotated[str, Query(max_length=255)]
Params = Annotated[str, Form(max_length=_LONGEST_PARAMS)]


class _OwnParams(BaseModel, extra="ignore"):
    """Parameters of an inference; clients send many more, of which those are taken that are options of a run."""

    result_extension: str | None = None


InferParams = create_model("InferParams", __base__=_OwnParams, **OPTION_FIELDS)

router = APIRouter(route_class=BodyRoute, include_in_schema=False)


@router.get("/auth/")
async def auth(context: Context) -> dict[str, bool]:
    """Whether a key is needed."""
    return {"enabled": bool(context.application.settings.api_keys)}


@router.post("/auth/token")
@body(_FORM, MULTIPART)
async def token(context: Context, password: Annotated[str, Form(max_length=1024)]) -> dict[str, str]:
    """The key, which clients of MONAI Label ask for as a password; any name of a user will do."""
    keys = parse_keys(key.get_secret_value() for key in context.application.settings.api_keys)
    if holder(keys, Headers({"x-api-key": password.encode("ascii", "replace").decode()})) is None:
        got, do = "a password that is none", "give a key of this service as the password"
        raise ProblemError("unauthorised", "password", expected="a key of this service", got=got, do=do)
    return {"access_token": password, "token_type": "bearer"}


@router.get("/auth/token/valid")
async def valid(request: Request) -> dict[str, str]:
    """Whose key the request carries."""
    return {"username": principal(request)}


@router.get("/info/")
async def info(context: Context) -> dict[str, Any]:
    """The models, with their labels and colours."""
    models = {served.reference: _described(served) for served in context.models.catalogue.models}
    labels = list(dict.fromkeys(label for model in models.values() for label in model["labels"]))
    return {
        "name": "voxport",
        "description": "Segmentation of volumes by verified ONNX models",
        "version": __version__,
        "labels": labels,
        "models": models,
        "trainers": {},
        "strategies": {},
        "scoring": {},
        "train_stats": {},
        "datastore": {},
    }


def _described(served: ServedModel) -> dict[str, Any]:
    card = served.model.card
    table = card.output.table.labels
    return {
        "type": "segmentation",
        "labels": {label.name: label.value for label in table},
        "dimension": 3,
        "description": card.description,
        "config": {"label_colors": _colours(table)},
    }


def _colours(table: Sequence[Label]) -> dict[str, list[int]]:
    return {label.name: list(label.rgb) for label in table}


@router.put("/session/")
@body(MULTIPART, files="job")
async def create_session(
    request: Request,
    context: Context,
    files: Annotated[list[UploadFile], File(min_length=1)],
    client_id: Annotated[str | uploads.None_, Form(max_length=255)] = None,  # noqa: ARG001 - clients send it
    uncompress: bool = False,  # noqa: ARG001 - archives are read as they are
    expiry: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """Keep a volume, of one file or of the files of a DICOM series, until it expires."""
    id = secrets.token_hex(16)
    seconds = min(expiry or _USUAL_SECONDS, _LONGEST_SECONDS)
    await _keep(request, context, id, files, seconds)
    return {"session_id": id, "session_info": {"name": id, "expiry": seconds}}


@router.get("/session/{session_id}")
async def get_session(request: Request, context: Context, session_id: str, update_ts: bool = False) -> dict[str, Any]:
    """How long a session lasts."""
    del update_ts
    left = await _of_owner(context, lambda kept: kept.seconds_left(principal(request), session_id))
    return {"name": session_id, "expiry": round(left)}


@router.delete("/session/{session_id}")
async def remove_session(request: Request, context: Context, session_id: str) -> dict[str, Any]:
    """Delete a session's volume."""
    await _of_owner(context, lambda kept: kept.forget(principal(request), session_id))
    return {"name": session_id}


@router.put("/datastore/")
@body(MULTIPART, files="job")
async def add_image(
    request: Request, context: Context, file: UploadFile, image: Id, params: Params = "{}"
) -> dict[str, str]:
    """Keep a volume under an id of the caller's choice, as a session."""
    del params
    await _keep(request, context, image, [file], _USUAL_SECONDS)
    return {"image": image}


@router.delete("/datastore/")
async def remove_image(request: Request, context: Context, id: Id) -> dict[str, str]:
    """Delete the volume of this id."""
    await _of_owner(context, lambda kept: kept.forget(principal(request), id))
    return {}


@router.post("/infer/{model}")
@body(MULTIPART, slot=True, files="run")
async def infer(
    request: Request,
    context: Context,
    model: str,
    image: Id = "",
    session_id: Id = "",
    params: Params = "{}",
    file: Annotated[UploadFile | uploads.None_, File()] = None,
    output: Answer = "all",
) -> Response:
    """Segment a session's volume, or the one that is sent, and answer with the label map."""
    folder: Path = request.state.folder
    asked: Any = checked(InferParams.model_validate, _object(params))
    options = options_of(asked.model_dump(), memory_bytes=context.memory_bytes, names=ARRAY)
    names = result_files(_format(asked.result_extension, output))
    table = context.find(model).model.card.output.table.labels
    if file is not None:
        inputs = await uploads.name_volumes([file])
    elif session_id or image:
        link = partial(_linked, owner=principal(request), id=session_id or image, folder=folder / "kept")
        inputs = await _of_owner(context, link)
    else:
        do = "upload the volume as a session, or send it as `file`"
        raise UsageError("infer", expected="session_id, image or a file", got="none of them", do=do)
    case = Case(context, inputs, [], options, folder, names)
    (result,) = await context.in_slot(request, partial(case.run, [model]))
    if result.error is not None:
        raise result.error
    result_params = {
        "label_names": {label.name: label.value for label in table},
        "label_colors": _colours(table),
        "report": result.report,
    }
    mask = result.folder / names["mask"]
    if output == "json":
        return JSONResponse(result_params)
    if output in ("image", "dicom_seg"):
        kind = SENT_MASKS[mask_format(mask.name) or USUAL_FORMAT].media_type
        return FileResponse(mask, media_type=kind, filename=mask.name)
    return await to_thread.run_sync(_form_of, result_params, mask)


def _object(params: str) -> Mapping[str, Any]:
    try:
        found = json.loads(params)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError("params", expected="a JSON object", got=short(params), do="correct it")
    return found


def _format(extension: str | None, output: Answer) -> MaskFormat:
    if output == "dicom_seg":
        return "dcm"
    wanted = mask_format(f"mask{extension}") if extension else USUAL_FORMAT
    if wanted is None:
        expected, do = f"one of {', '.join('.' + name for name in SENT_MASKS)}", "choose another"
        raise UsageError("result_extension", expected=expected, got=short(extension), do=do)
    return wanted


def _linked(kept: KeptVolumes, *, owner: str, id: str, folder: Path) -> list[str]:
    """References of the case: the one file, or the folder of a series."""
    folder.mkdir()
    files = kept.link(owner, id, folder)
    return [str(folder if len(files) > 1 else files[0])]


async def _keep(
    request: Request, context: ServiceContext, id: str, files: Sequence[UploadFile], seconds: float
) -> None:
    paths = await uploads.name_volumes(files)
    hashed = [(Path(path), uploads.received(file).sha256) for path, file in zip(paths, files, strict=True)]
    await context.jobs.in_thread(
        partial(KeptVolumes(context.application.blobs).keep, principal(request), id, hashed, seconds)
    )


async def _of_owner(context: ServiceContext, do: Any) -> Any:
    """Ask the kept volumes; an id that the caller has no volume of is not found."""
    try:
        return await context.jobs.in_thread(lambda: do(KeptVolumes(context.application.blobs)))
    except InputError as error:
        raise ProblemError("not-found", error.subject, expected=error.expected, got=error.got, do=error.do) from None


def _form_of(params: Mapping[str, Any], mask: Path) -> Response:
    """A form with the fields ``params``, as JSON, and ``image``, the mask's file: MITK looks for just these types."""
    mark = secrets.token_hex(16)
    form = mask.with_name("answer")
    name = f"{secrets.token_hex(4)}_{mask.name}"  # clients write it into one folder under this name
    with form.open("wb") as target, mask.open("rb") as source:
        target.write(
            f'--{mark}\r\nContent-Disposition: form-data; name="params"\r\n'
            f"Content-Type: application/json\r\n\r\n{json.dumps(params)}\r\n"
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode()
        )
        shutil.copyfileobj(source, target)
        target.write(f"\r\n--{mark}--\r\n".encode())
    return FileResponse(form, media_type=f"{MULTIPART}; boundary={mark}")
