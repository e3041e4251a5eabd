"""``GET /v1/jobs/{id}/events``: the progress of a job as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from anyio import sleep
from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from ...domain.errors import UnknownJobError
from ...domain.job import Job
from ..public_address import prefix_of
from . import job_openapi as openapi
from .context import ServiceContext
from .job_access import OwnJob
from .problems import ProblemError

_LOOK_EVERY_SECONDS = 0.5
_APART_SECONDS = 0.01  # between two looks of all streams together: a hundred streams look once a second each


def job_event_routes(context: ServiceContext) -> APIRouter:
    """The route that streams."""
    router = APIRouter(tags=["jobs"])

    @router.get(
        "/v1/jobs/{id}/events",
        response_class=EventSourceResponse,
        responses=openapi.JOB_EVENTS,
        summary="How a job goes on",
    )
    async def job_events(request: Request, job: OwnJob) -> AsyncIterator[ServerSentEvent]:
        """An event `job` now, and each time that the job changes, with the job as JSON; ends once the job has ended."""
        with context.jobs.listening():
            async for seen in _changes(context, job):
                (answer,) = await context.jobs.mappings(seen, prefix=prefix_of(request.scope))
                yield ServerSentEvent(event="job", data=answer)

    return router


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
