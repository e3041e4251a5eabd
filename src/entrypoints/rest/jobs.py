"""``/v1/jobs``: submit, list, follow, cancel, retry and delete jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from anyio import sleep
from fastapi import APIRouter, Form, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import JSONResponse, Response

from ...contract.job import JobAnswer, JobsAnswer, job_path
from ...domain.errors import UnknownJobError
from ...domain.job import Job, JobState
from ...domain.run import result_files
from ...domain.volume_names import USUAL_FORMAT
from ...services.jobs.submit import case_folder
from ..public_address import prefix_of
from . import uploads
from .context import Context, RequestProgress, ServiceContext
from .job_access import OwnJob, principal, reached
from .openapi import GUARDED_KINDS, RUN_KINDS, TEXT, VOLUME, Responses, form, problems
from .problems import ProblemError
from .routing import MULTIPART, BodyRoute, body

_log = logging.getLogger("voxport.jobs")
_MOST_LISTED = 1000
_FARTHEST = 1_000_000
_LOOK_EVERY_SECONDS = 0.5
_APART_SECONDS = 0.01  # between two looks of all streams together: a hundred streams look once a second each
_QUEUE = (*GUARDED_KINDS, "unavailable")
_OWN = problems("unknown-job")
_NOW: Responses = {**_OWN, 202: {"description": "The job as it is now."}}
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"const": "job"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": f"#/components/schemas/{JobAnswer.__name__}"},
        },
    },
}
_FORM = form(
    by_the_default_model={"volume": [VOLUME]},
    with_probabilities={
        "volume": [VOLUME],
        "model": "two-photon-vessels",
        "outputs": ["mask", "probabilities"],
        "overlap": 0.25,
    },
    a_volume_that_states_no_voxel_sizes={"volume": [VOLUME], "spacing": "0.5,0.5,2", "unit": "um", "format": "ome.tif"},
)
RequestKey = Annotated[
    str | uploads.None_,
    Header(
        alias="Idempotency-Key",
        description="The caller's name for this request. The same name with the same case returns the same job.",
        min_length=1,
        max_length=255,
        pattern="^[!-~]([ -~]*[!-~])?$",
    ),
]
CallbackUrl = Annotated[
    str | uploads.None_,
    Form(
        description="Called by POST when the job has ended; only where the service allows its origin.", max_length=2048
    ),
]
States = Annotated[list[JobState], Query(alias="state", description="Only jobs in this state; repeatable.")]
Limit = Annotated[int, Query(description="Most jobs to list.", ge=1, le=_MOST_LISTED)]
Offset = Annotated[int, Query(description="Jobs to skip at the beginning of the list.", ge=0, le=_FARTHEST)]

router = APIRouter(route_class=BodyRoute, tags=["jobs"], responses=problems(*_QUEUE))


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=JobAnswer,
    responses={
        **problems(*_QUEUE, *RUN_KINDS),
        202: {
            "description": "The job is stored and will be run.",
            "headers": {
                "Location": {"description": "The job's path.", "required": True, "schema": TEXT},
                "Idempotency-Replayed": {"description": "`true`: an earlier request made it.", "schema": TEXT},
            },
        },
    },
    openapi_extra=_FORM,
    summary="Submit a job",
)
@body(MULTIPART, files="job")
async def submit_job(
    request: Request,
    context: Context,
    volume: uploads.Volumes,
    options: uploads.Options,
    model: uploads.ModelName = None,
    outputs: uploads.Outputs = ["mask"],  # noqa: B006 - FastAPI copies it
    mask_format: uploads.MaskIn = None,
    callback_url: CallbackUrl = None,
    key: RequestKey = None,
) -> Response:
    """Queue a case. It is checked first: a case that no worker can run is refused at once."""
    # without a memory limit: each worker has its own
    context.find(model)
    if callback_url is not None:
        context.application.callbacks.sender.check(callback_url)
    inputs = await uploads.name_volumes(volume)
    owner = principal(request)

    def submit(progress: RequestProgress) -> tuple[Job, bool]:
        name = result_files(mask_format)["mask"] if mask_format else None
        trial = None if name is None else str(request.state.folder / name)
        loaded, planned = context.estimate(inputs, model, options, progress, mask=trial)
        folder = case_folder()
        job = reached(
            lambda: context.application.submit_case(
                [(Path(reference).name, Path(reference)) for reference in inputs],
                loaded.model.card.reference,
                options,
                outputs,
                owner,
                key=key,
                model_sha256=loaded.model.sha256,
                estimate_seconds=planned.seconds,
                folder=folder,
                hashes=[uploads.received(upload).sha256 for upload in volume],
                mask_format=mask_format or USUAL_FORMAT,
            )
        )
        if callback_url is not None:
            reached(lambda: context.application.callbacks.add(job, callback_url))
        return job, job.case.folder != folder

    job, replayed = await context.without_slot(request, submit, context.submitting)
    if not replayed:
        _log_event(job, "submitted", owner)
    place = prefix_of(request.scope) + job_path(job)
    headers = {"Location": place} | ({"Idempotency-Replayed": "true"} if replayed else {})
    return await _answer(request, context, job, 202, headers)


@router.get("/v1/jobs", response_model=JobsAnswer, summary="Jobs")
async def jobs(
    request: Request,
    context: Context,
    state: States = [],  # noqa: B006
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """The caller's jobs, the latest first."""
    owner, states = principal(request), set(state) or None
    found = await context.jobs.ask(lambda queue: queue.list(owner, states, offset + limit)[offset:])
    return JSONResponse({"jobs": await context.jobs.mappings(request, *found)})


@router.get("/v1/jobs/{id}", response_model=JobAnswer, responses=_OWN, summary="One job")
async def job(request: Request, context: Context, job: OwnJob) -> Response:
    """One job: its state, place in the queue, tiles, problem and results."""
    return await _answer(request, context, job)


@router.delete(
    "/v1/jobs/{id}",
    status_code=202,
    response_model=JobAnswer,
    responses={
        **_OWN,
        **problems("conflict", "output"),
        202: {"description": "The job was queued or running, and is cancelled, or will be at its next tile."},
        204: {"description": "The job had ended, and its data is deleted."},
    },
    summary="Cancel a job, or delete its data",
)
async def delete_job(request: Request, context: Context, job: OwnJob) -> Response:
    """Cancel a queued or running job, which stops at its next tile. Delete the data of a job that has ended."""
    if not job.has_ended:
        return await cancel_job(request, context, job)
    owner = principal(request)
    await context.jobs.ask(lambda _: context.application.forget_job(job.id, owner))
    _log_event(job, "deleted", owner)
    return Response(status_code=204)


@router.post("/v1/jobs/{id}/cancel", status_code=202, response_model=JobAnswer, responses=_NOW, summary="Cancel a job")
async def cancel_job(request: Request, context: Context, job: OwnJob) -> Response:
    """Cancel a job: at once if it is queued, at its next tile if it runs. A job that has ended stays as it is."""
    owner = principal(request)
    now = await context.jobs.ask(lambda queue: queue.cancel(job.id, owner))
    if not job.has_ended:
        _log_event(now, "cancelled" if now.has_ended else "cancelling", owner)
    return await _answer(request, context, now, 202)


@router.post(
    "/v1/jobs/{id}/retry",
    status_code=202,
    response_model=JobAnswer,
    responses={**_NOW, **problems("conflict")},
    summary="Try a job again",
)
async def retry_job(request: Request, context: Context, job: OwnJob) -> Response:
    """Queue a job again that failed, was cancelled or was dead-lettered, at the end of the queue."""
    owner = principal(request)
    now = await context.jobs.ask(lambda queue: queue.retry(job.id, owner))
    return await _answer(request, context, now, 202)


@router.get(
    "/v1/jobs/{id}/events",
    response_class=EventSourceResponse,
    responses={
        **_OWN,
        200: {
            "description": "Server-sent events `job`, whose data is the job as `/v1/jobs/{id}` answers it.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
    },
    summary="How a job goes on",
)
async def job_events(request: Request, context: Context, job: OwnJob) -> AsyncIterator[ServerSentEvent]:
    """An event `job` now, and each time that the job changes, with the job as JSON; ends once the job has ended."""
    context.jobs.listeners += 1
    try:
        async for seen in _changes(context, job):
            (answer,) = await context.jobs.mappings(request, seen)
            yield ServerSentEvent(event="job", data=answer)
    finally:
        context.jobs.listeners -= 1


async def _changes(context: ServiceContext, job: Job) -> AsyncIterator[Job]:
    """The job, and again at each change, until it or the process ends."""
    id, before = job.id, None
    while True:
        now = (job.state, job.attempts, job.tiles_done, job.tiles_total, job.position, job.cancelling)
        if now != before:
            yield job
        if job.has_ended or not await _paused(context):
            return
        before = now
        try:
            job = await context.jobs.ask(lambda queue: queue.get(id))
        except ProblemError:
            continue  # the queue is away: the last known state holds
        except UnknownJobError:
            return


async def _paused(context: ServiceContext) -> bool:
    """Wait until the next look; False when the process ends."""
    ends = time.monotonic() + max(_LOOK_EVERY_SECONDS, context.jobs.listeners * _APART_SECONDS)
    while not context.stop.is_set():
        left = ends - time.monotonic()
        if left <= 0:
            return True
        await sleep(min(left, _LOOK_EVERY_SECONDS))
    return False


def _log_event(job: Job, event: str, by: str) -> None:
    _log.info("job %s: %s by %s", job.id, event, by, extra={"fields": {"job": job.id, "event": event, "by": by}})


async def _answer(
    request: Request, context: ServiceContext, job: Job, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    (answer,) = await context.jobs.mappings(request, job)
    return JSONResponse(answer, status, headers)
