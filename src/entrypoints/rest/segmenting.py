"""``POST /segment`` and ``POST /v1/plan``: segment a case, or estimate its run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse, Response

from ... import __version__
from ...contract import service as schemas
from ...domain.errors import BusyError, CancelledError, TimeLimitError, UnknownModelError, VoxportError
from ...domain.labels.statistics_file import statistics_bytes
from ...domain.report import grid_mapping
from ...domain.run import STATISTICS_TABLE, RunOptions, result_files
from ...domain.run import Outputs as OutputFiles
from ...domain.volume_names import SENT_MASKS, USUAL_FORMAT, MaskFormat
from ...services.segmentation.report import portable_report, tiles_mapping
from . import uploads
from .context import Context, RequestProgress, ServiceContext
from .openapi import GUARDED_KINDS, RUN_KINDS, TEXT, VOLUME, binary, form, problems
from .problems import problem_body, problem_of
from .routing import MULTIPART, BodyRoute, accepted, body, request_id, without_paths

REPORT_HEADER = "Voxport-Report"
_JSON, _ZIP = "application/json", "application/zip"
_MASK_TYPES = dict.fromkeys(sent.media_type for sent in SENT_MASKS.values())
# Formats that Accept alone asks for, by media type; the other types have several formats.
_BY_ACCEPT: Mapping[str, MaskFormat] = {SENT_MASKS[form].media_type: form for form in (USUAL_FORMAT, "ome.tif", "dcm")}
_LONGEST_HEADER = 12_000  # characters; many clients and proxies limit all headers to 16 KB


router = APIRouter(route_class=BodyRoute, tags=["segment"], responses=problems(*GUARDED_KINDS, *RUN_KINDS))


@router.post(
    "/segment",
    response_class=Response,
    responses={
        **problems("not-acceptable"),
        200: {
            "description": "The mask, in the format that `format` or Accept asks for; a zip where several models or "
            "other outputs are asked for; or reports alone, where Accept prefers JSON.",
            "model": schemas.Results,
            "content": {media_type: binary(media_type) for media_type in _MASK_TYPES},
            "headers": {
                REPORT_HEADER: {
                    "description": "Of one mask: its report, as JSON in ASCII, without the model's card.",
                    "schema": {"type": "string", "contentMediaType": _JSON},
                },
                "Content-Disposition": {"description": "A name for the file.", "schema": TEXT},
            },
        },
    },
    openapi_extra=form(
        a_mask_by_the_default_model={"volume": [VOLUME]},
        a_mask_and_its_statistics={
            "volume": [VOLUME],
            "model": ["two-photon-vessels"],
            "outputs": ["mask", "statistics"],
        },
        a_volume_that_states_no_voxel_sizes={
            "volume": [VOLUME],
            "spacing": "0.5,0.5,2",
            "unit": "um",
            "format": "ome.tif",
        },
        two_models={"volume": [VOLUME], "model": ["two-photon-vessels", "nuclei:1.2.0"], "overlap": 0.25},
    ),
    summary="Segment a case",
)
@body(MULTIPART, slot=True, files="run")
async def segment(
    request: Request,
    context: Context,
    volume: uploads.Volumes,
    options: uploads.Options,
    model: uploads.ModelNames = [],  # noqa: B006 - FastAPI copies it
    outputs: uploads.Outputs = ["mask"],  # noqa: B006
    mask_format: uploads.MaskIn = None,
) -> Response:
    """Segment a case; the mask lies on the voxels of the first volume."""
    single = len(set(model)) < 2 and set(outputs) == {"mask"}
    offers = [_ZIP] if not single else [SENT_MASKS[mask_format].media_type] if mask_format else [*_BY_ACCEPT]
    kind = accepted(request, offers[0], _JSON, *offers[1:])
    mask_format = mask_format or _BY_ACCEPT.get(kind, USUAL_FORMAT)
    options = replace(options, memory_bytes=context.memory_bytes)
    models = _each_once(context, model)
    inputs = await uploads.name_volumes(volume)
    folder: Path = request.state.folder
    names = result_files(mask_format)
    case = Case(context, inputs, [] if kind == _JSON else outputs, options, folder, names)
    results = await context.in_slot(request, partial(case.run, models))
    if all(result.error is not None for result in results):
        raise next(result.error for result in results if result.error is not None)
    if single and kind != _JSON:
        return _one_mask(results[0], names["mask"], kind)
    listed = _listed(results, (f"{folder}/", *context.private_paths), request_id(request))
    if kind == _JSON:
        return JSONResponse(listed)
    archive = await to_thread.run_sync(partial(_archive, results, _files(outputs, names), listed, folder))
    return FileResponse(archive, media_type=_ZIP, filename="segmentation.zip")


@router.post(
    "/v1/plan",
    response_model=schemas.Plan,
    openapi_extra=form(
        as_the_card_says={"volume": [VOLUME]},
        smaller_tiles={"volume": [VOLUME], "model": "two-photon-vessels", "patch": "64,64,16"},
    ),
    summary="Estimate a run",
)
@body(MULTIPART, files="run")
async def plan(
    request: Request,
    context: Context,
    volume: uploads.Volumes,
    options: uploads.Options,
    model: uploads.ModelName = None,
) -> Response:
    """Estimate tiles, time and memory of a run, with warnings. Nothing is inferred."""
    inputs = await uploads.name_volumes(volume)
    loaded, planned = await context.without_slot(request, partial(context.estimate, inputs, model, options))
    tiles = tiles_mapping(planned.prepared)
    return JSONResponse(
        {
            "model": loaded.model.card.reference,
            "tiles": tiles["count"],
            **{name: tiles[name] for name in ("tile", "padded", "axis", "blending", "resampled")},
            "seconds": planned.seconds,
            "peak_bytes": planned.peak_bytes,
            "warnings": list(planned.warnings),
            "grid": grid_mapping(planned.prepared.case.grid),
            "model_grid": grid_mapping(planned.prepared.space.grid),
        }
    )


@dataclass(frozen=True)
class Result:
    """The result of one model: its report and the folder of its files, or its error."""

    model: str
    folder: Path
    report: Mapping[str, Any] | None = None
    error: VoxportError | None = None


@dataclass(frozen=True)
class Case:
    """A case in files, the outputs to make of it, and the folder and names for them."""

    context: ServiceContext
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: RunOptions
    folder: Path
    names: Mapping[str, str]

    def run(self, models: Sequence[str], progress: RequestProgress, queued_seconds: float) -> list[Result]:
        """One result per model; a model that fails does not stop the others."""
        results = []
        for number, name in enumerate(models, 1):
            folder = self.folder / f"result_{number}"
            folder.mkdir()
            try:
                results.append(self._run_one(name, folder, progress, queued_seconds))
            except (BusyError, CancelledError, TimeLimitError):
                raise
            except VoxportError as error:
                results.append(Result(name, folder, error=error))
        return results

    def _run_one(self, model: str, folder: Path, progress: RequestProgress, queued_seconds: float) -> Result:
        context, outputs, names = self.context, self.outputs, self.names
        loaded = context.models.take(model)
        files = {name: str(folder / names[name]) for name in ("mask", *outputs) if name != "report"}
        done = context.application.segment(self.inputs, loaded, OutputFiles(**files), self.options, progress)
        context.metrics.inferred(loaded, done, queued_seconds)
        report = portable_report(done, loaded, version=__version__, mask=names["mask"])
        report["seconds"] = {"queued": round(queued_seconds, 4), **report["seconds"]}
        if "statistics" in outputs:
            (folder / STATISTICS_TABLE).write_bytes(statistics_bytes(STATISTICS_TABLE, done.statistics, done.grid))
        if "report" in outputs:
            (folder / names["report"]).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        del report["model"]["card"]  # /v1/models has it, and a header must stay small
        return Result(loaded.model.card.reference, folder, report)


def _each_once(context: ServiceContext, names: Sequence[str]) -> list[str]:
    """References without repetition, in the order given. Among several, an unknown name stays and gets a problem."""
    models: dict[str, None] = {}
    wanted: list[str | None] = [*names] or [None]
    for name in wanted:
        try:
            models[context.find(name).reference] = None
        except UnknownModelError:
            if name is None or len(wanted) == 1:
                raise
            models[name] = None
    return list(models)


def _one_mask(result: Result, name: str, media_type: str) -> Response:
    report = json.dumps(result.report, separators=(",", ":"))
    if len(report) > _LONGEST_HEADER and result.report is not None:
        short = {name: value for name, value in result.report.items() if name != "statistics"}
        report = json.dumps(short, separators=(",", ":"))
    return FileResponse(result.folder / name, media_type=media_type, filename=name, headers={REPORT_HEADER: report})


def _listed(results: Sequence[Result], private_paths: Sequence[str], request: str) -> dict[str, Any]:
    def outcome(result: Result) -> dict[str, Any]:
        if result.error is None:
            return {"report": result.report}
        return {"problem": problem_body(without_paths(problem_of(result.error), private_paths), request)}

    return {"results": [{"model": result.model, **outcome(result)} for result in results]}


def _archive(results: Sequence[Result], files: Sequence[str], listed: Mapping[str, Any], folder: Path) -> Path:
    """A zip of all results' files, not compressed: they are small or compressed already."""
    archive = folder / "segmentation.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, allowZip64=True) as members:
        members.writestr("results.json", json.dumps(listed, indent=2) + "\n")
        for result in results:
            for file in files if result.error is None else ():
                members.write(result.folder / file, f"{result.model.replace(':', '-')}/{file}")
    return archive


def _files(outputs: Sequence[str], names: Mapping[str, str]) -> list[str]:
    table = [STATISTICS_TABLE] if "statistics" in outputs else []
    return [*(names[name] for name in dict.fromkeys(outputs)), *table]
