"""Results of a job: stored files, and pictures of slices."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from math import ceil
from typing import IO, Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from ...domain.errors import UsageError
from ...domain.job import Job, StoredFile
from ...domain.report import Report, StatisticsReport
from ...domain.viewing.slicing import Plane
from ...domain.volume_names import SENT_MASKS
from ...ports.blobs import BlobStore
from ...services.jobs.run import TABLE
from . import uploads
from .context import Context, ServiceContext
from .job_access import OwnJob, read
from .openapi import GUARDED_KINDS, TEXT, Responses, binary, problems
from .problems import ProblemError
from .routing import Endpoint, accepted

_GZIP, _JSON, _CSV, _PNG = "application/gzip", "application/json", "text/csv", "image/png"
_CHUNK_BYTES = 2**18
_ENDS = {"failed": "failed", "parked": "was dead-lettered", "cancelled": "was cancelled"}
_MOST_SECONDS = 60.0  # longest Retry-After for a result that does not exist yet
IfNoneMatch = Annotated[
    str | uploads.None_,
    Header(alias="If-None-Match", description="An ETag: the answer is 304 if it still matches."),
]
ShownPlane = Annotated[
    Plane | uploads.None_, Query(description="The plane of a slice; the stored picture where absent.")
]
ShownIndex = Annotated[
    int | uploads.None_,
    Query(description="Of the slice, as the first volume is stored along that axis; the middle where absent.", ge=0),
]


_KINDS = (*GUARDED_KINDS, "unavailable", "unknown-job", "conflict", "not-found")
_ETAG = {"description": "The sha256 of the bytes, in quotes.", "schema": TEXT}
_HEADERS = {"ETag": _ETAG, "Content-Disposition": {"description": "A name for the file.", "schema": TEXT}}

router = APIRouter(
    tags=["jobs"],
    responses={**problems(*_KINDS), 304: {"description": "The caller has these bytes.", "headers": {"ETag": _ETAG}}},
)


def _file(*media_types: str) -> dict[str, Any]:
    content = {media_type: binary(media_type) for media_type in media_types}
    return {"description": "The file.", "content": content, "headers": _HEADERS}


def _get(path: str, summary: str, responses: Responses) -> Callable[[Endpoint], Endpoint]:
    return router.get(f"/v1/jobs/{{id}}/{path}", response_class=Response, responses=responses, summary=summary)


@_get("mask", "The mask of a job", {200: _file(*dict.fromkeys(sent.media_type for sent in SENT_MASKS.values()))})
async def job_mask(context: Context, job: OwnJob, known: IfNoneMatch = None) -> Response:
    """The mask, on the voxels of the first volume, in the format that the submission asked for."""
    return await _stored(context, job, "mask", SENT_MASKS[job.case.mask_format].media_type, known)


@_get("probabilities", "The probabilities of a job", {200: _file(_GZIP)})
async def job_probabilities(context: Context, job: OwnJob, known: IfNoneMatch = None) -> Response:
    """The probabilities of all classes, if they were requested."""
    return await _stored(context, job, "probabilities", _GZIP, known)


@_get("uncertainty", "The uncertainty of a job", {200: _file(_GZIP)})
async def job_uncertainty(context: Context, job: OwnJob, known: IfNoneMatch = None) -> Response:
    """Entropy and margin of each voxel in per cent, if they were requested; the statistics say where to look."""
    return await _stored(context, job, "uncertainty", _GZIP, known)


@_get(
    "statistics",
    "The statistics of a job",
    {
        **problems("not-acceptable"),
        200: {
            "description": "Measures of each label.",
            "model": StatisticsReport,
            "content": {_CSV: binary(_CSV)},
            "headers": {**_HEADERS, "Vary": {"description": "`Accept`.", "schema": TEXT}},
        },
    },
)
async def job_statistics(request: Request, context: Context, job: OwnJob, known: IfNoneMatch = None) -> Response:
    """Measures of each label, as JSON or CSV, whichever Accept prefers."""
    kind = accepted(request, _JSON, _CSV)
    return await _stored(context, job, "statistics" if kind == _JSON else TABLE, kind, known, {"Vary": "Accept"})


@_get("report", "The report of a job", {200: {"description": "The report.", "model": Report, "headers": _HEADERS}})
async def job_report(context: Context, job: OwnJob, known: IfNoneMatch = None) -> Response:
    """The report of the run: model and hashes, runtime, grid, tiles, statistics, seconds, warnings."""
    return await _stored(context, job, "report", _JSON, known)


@_get(
    "preview.png",
    "A picture of a job",
    {**problems(*_KINDS, "cancelled", "timeout", "output"), 200: _file(_PNG)},
)
async def job_preview(
    request: Request,
    context: Context,
    job: OwnJob,
    plane: ShownPlane = None,
    index: ShownIndex = None,
    known: IfNoneMatch = None,
) -> Response:
    """The stored picture of three planes; with `plane` and `index`, one slice of the first volume with its mask."""
    if plane is None:
        if index is not None:
            raise UsageError("index", expected="a plane beside it", got="none", do="say which plane")
        return await _stored(context, job, "preview", _PNG, known)
    _result_of(job, "preview")
    show = partial(context.application.job_slice, job, plane, index)
    return Response(await context.without_slot(request, lambda p: read(lambda: show(p))), media_type=_PNG)


async def _stored(
    context: ServiceContext,
    job: Job,
    output: str,
    media_type: str,
    known: str | None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Send a stored file, or 304 if the caller has it."""
    file = _result_of(job, output)
    headers = {**(headers or {}), "ETag": f'"{file.sha256}"'}
    if known is not None and _matches(known, file.sha256):
        return Response(status_code=304, headers=headers)
    stream, size = await context.jobs.read(lambda blobs: _opened(blobs, file))
    headers |= {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{file.name}"'}
    return StreamingResponse(_chunks(context, stream), headers=headers, media_type=media_type)


def _result_of(job: Job, output: str) -> StoredFile:
    """A result of the job. Raises ProblemError if it does not exist, or not yet."""
    subject = f"{output} of job {job.id}"
    if not job.has_ended:
        seconds = ceil(min(max(job.case.estimate_seconds or 1.0, 1.0), _MOST_SECONDS))
        do, headers = f"ask again in {seconds} s, or follow its events", {"Retry-After": str(seconds)}
        expected, got = "one that is done", f"one that is {job.state}"
        raise ProblemError("conflict", subject, expected=expected, got=got, do=do, headers=headers)
    if job.state != "done":
        got = f"one that {_ENDS[job.state]}" + (f": {job.failure.detail}" if job.failure else "")
        raise ProblemError("conflict", subject, expected="one that is done", got=got, do="try it again")
    if output not in job.results:
        do = f"submit the case again with outputs={output}"
        expected, got = "an output that was asked for", "one that was not"
        raise ProblemError("not-found", subject, expected=expected, got=got, do=do)
    return job.results[output]


def _matches(known: str, sha256: str) -> bool:
    """Whether If-None-Match names these bytes (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return "*" in tags or f'"{sha256}"' in tags


def _opened(blobs: BlobStore, file: StoredFile) -> tuple[IO[bytes], int]:
    """An open file and its size in bytes."""
    stream = blobs.open(file.blob)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return stream, size


async def _chunks(context: ServiceContext, stream: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while chunk := await context.jobs.in_thread(lambda: stream.read(_CHUNK_BYTES)):
            yield chunk
    finally:
        stream.close()
