"""``/v1/jobs``: submit, list, cancel, retry and delete jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from ...contract.job import JobAnswer, JobsAnswer, job_path
from ...contract.options import REMOTE
from ...domain.errors import UsageError
from ...domain.job import Job, JobState
from ...domain.run import RunOptions
from ...ports.job_queue import JobQueue
from ...services.jobs.submit import case_folder
from ..public_address import prefix_of
from . import job_openapi as openapi
from . import uploads
from .context import RequestProgress, ServiceContext
from .job_access import OwnJob, principal, reached
from .problems import Problem, ProblemError
from .routing import MULTIPART, BodyRoute, body

T = TypeVar("T")
_log = logging.getLogger("voxport.jobs")
_MOST_LISTED = 1000
_FARTHEST = 1_000_000
RequestKey = Annotated[
    str | uploads.None_,
    Header(
        alias="Idempotency-Key",
        description="A name of the caller's for this request: sent again with the same case, it gives the same job.",
        min_length=1,
        max_length=255,
        pattern="^[!-~]([ -~]*[!-~])?$",
    ),
]
States = Annotated[list[JobState], Query(alias="state", description="Only jobs in this state; repeatable.")]
Limit = Annotated[int, Query(description="At most so many.", ge=1, le=_MOST_LISTED)]
Offset = Annotated[int, Query(description="Jobs to leave out at the beginning of the list.", ge=0, le=_FARTHEST)]


@dataclass(frozen=True)
class _Asked:
    """A submission and its owner."""

    inputs: Sequence[str]
    hashes: Sequence[str]
    model: str | None
    options: RunOptions
    outputs: Sequence[str]
    owner: str
    key: str | None


def job_routes(context: ServiceContext) -> APIRouter:
    """The routes of jobs, except their events and results."""
    router = APIRouter(route_class=BodyRoute, tags=["jobs"])

    @router.post(
        "/v1/jobs",
        status_code=202,
        response_model=JobAnswer,
        responses=openapi.JOB_SUBMITTED,
        openapi_extra=openapi.JOB_BODY,
        dependencies=[uploads.form_fields(single=("model", *REMOTE), repeated=("volume", "outputs"))],
        summary="Submit a job",
    )
    @body(MULTIPART, files="job")
    @uploads.takes_options
    async def submit_job(
        request: Request,
        volume: uploads.Volumes,
        model: uploads.ModelName = None,
        outputs: uploads.Outputs = ["mask"],  # noqa: B006 - FastAPI copies it
        key: RequestKey = None,
        *,
        options: RunOptions,
    ) -> Response:
        """Have a case segmented in its turn. It is looked over first: what could never be done is refused now."""
        # without a memory limit: each worker has its own
        context.models.find(model)
        inputs = await uploads.name_volumes(volume)
        asked = _Asked(inputs, [*map(uploads.hash_of, volume)], model, options, outputs, principal(request), key)
        job, replayed = await context.without_slot(request, partial(_submit, context, asked), context.submitting)
        if not replayed:
            _log_event(job, "submitted", asked.owner)
        place = prefix_of(request.scope) + job_path(job)
        headers = {"Location": place} | ({"Idempotency-Replayed": "true"} if replayed else {})
        return await _answer(request, job, 202, headers)

    @router.get("/v1/jobs", response_model=JobsAnswer, responses=openapi.JOBS, summary="Jobs")
    async def jobs(request: Request, state: States = [], limit: Limit = 100, offset: Offset = 0) -> Response:  # noqa: B006
        """The caller's jobs, the latest first."""
        owner, states = principal(request), set(state) or None
        found = await context.jobs.ask(lambda queue: queue.list(owner, states, offset + limit)[offset:])
        return JSONResponse({"jobs": await context.jobs.mappings(*found, prefix=prefix_of(request.scope))})

    @router.get("/v1/jobs/{id}", response_model=JobAnswer, responses=openapi.JOB, summary="One job")
    async def job(request: Request, job: OwnJob) -> Response:
        """One job: its state, place in the queue, tiles, and what has become of it."""
        return await _answer(request, job)

    @router.delete(
        "/v1/jobs/{id}",
        status_code=202,
        response_model=JobAnswer,
        responses=openapi.JOB_DELETED,
        summary="Cancel a job, or delete its data",
    )
    async def delete_job(request: Request, job: OwnJob) -> Response:
        """Cancel a job that waits or runs, which stops it at its next tile. Delete the data of one that has ended."""
        owner = principal(request)
        if not job.has_ended:
            return await _answer(request, await _cancelled(context, job, owner), 202)
        forget = context.application.forget_job
        await context.jobs.ask(lambda _: _if_it_may(lambda: forget(job.id, owner)))
        _log_event(job, "deleted", owner)
        return Response(status_code=204)

    @router.post(
        "/v1/jobs/{id}/cancel",
        status_code=202,
        response_model=JobAnswer,
        responses=openapi.JOB_CANCELLED,
        summary="Cancel a job",
    )
    async def cancel_job(request: Request, job: OwnJob) -> Response:
        """Cancel a job: at once if it waits, at its next tile if it runs. One that has ended stays as it is."""
        owner = principal(request)
        return await _answer(request, await _cancelled(context, job, owner), 202)

    @router.post(
        "/v1/jobs/{id}/retry",
        status_code=202,
        response_model=JobAnswer,
        responses=openapi.JOB_CHANGED,
        summary="Try a job again",
    )
    async def retry_job(request: Request, job: OwnJob) -> Response:
        """Put a job that failed, was cancelled or was dead-lettered into the queue again, as the last one."""
        owner = principal(request)
        retry: Callable[[JobQueue], Job] = lambda queue: _if_it_may(lambda: queue.retry(job.id, owner))  # noqa: E731
        return await _answer(request, await context.jobs.ask(retry), 202)

    return router


async def _cancelled(context: ServiceContext, job: Job, owner: str) -> Job:
    now = await context.jobs.ask(lambda queue: queue.cancel(job.id, owner))
    if not job.has_ended:
        _log_event(now, "cancelled" if now.has_ended else "cancelling", owner)
    return now


def _log_event(job: Job, event: str, by: str) -> None:
    _log.info("job %s: %s by %s", job.id, event, by, extra={"fields": {"job": job.id, "event": event, "by": by}})


async def _answer(request: Request, job: Job, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    (answer,) = await request.app.state.context.jobs.mappings(job, prefix=prefix_of(request.scope))
    return JSONResponse(answer, status, headers)


def _submit(context: ServiceContext, asked: _Asked, progress: RequestProgress) -> tuple[Job, bool]:
    """Check the case and queue it; its job, and whether an earlier request made it."""
    loaded, planned = context.estimate(asked.inputs, asked.model, asked.options, progress)
    folder = case_folder()
    submit = partial(
        context.application.submit_case,
        [(Path(reference).name, Path(reference)) for reference in asked.inputs],
        loaded.model.card.reference,
        asked.options,
        asked.outputs,
        asked.owner,
        key=asked.key,
        model_sha256=loaded.model.sha256,
        estimate_seconds=planned.seconds,
        folder=folder,
        hashes=asked.hashes,
    )
    job = reached(submit)
    return job, job.case.folder != folder


def _if_it_may(change: Callable[[], T]) -> T:
    """Change a job. Raises ProblemError where its state does not allow it."""
    try:
        return change()
    except UsageError as error:
        problem = Problem.about("conflict", error.subject, expected=error.expected, got=error.got, do=error.do)
        raise ProblemError(problem) from None
