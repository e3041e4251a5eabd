"""Shared by all routes: the use cases, their limits, and the threads that run a request's work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends
from starlette.requests import Request

from ...application import Application
from ...domain.errors import BusyError, CancelledError, TimeLimitError
from ...domain.run import RunOptions
from ...services.models.loading import LoadedModel
from ...services.models.registry import Catalogue, ServedModel
from ...services.segmentation.estimate import Estimate
from ...services.segmentation.preparation.planning import memory_limit
from .connections import Draining
from .job_access import JobAccess
from .metrics import Metrics

T = TypeVar("T")
_SUBMISSIONS = 8  # cases checked at a time
_SIDE_WORKERS = 2  # threads for work without a slot: estimates, reading arrays
_SHARED_CALLS = 128  # small requests at a time for each slot; they wait for the batch that they share


class RequestProgress:
    """Stops a run if the caller disconnects or the time limit is reached."""

    def __init__(self, limit_seconds: float) -> None:
        self._gone = threading.Event()
        self._limit_seconds = limit_seconds
        self._ends = time.monotonic() + limit_seconds

    def abandon(self) -> None:
        """Stop the run: the caller has disconnected."""
        self._gone.set()

    def check(self) -> None:
        """Raise CancelledError or TimeLimitError if the run should stop."""
        if self._gone.is_set():
            raise CancelledError
        if time.monotonic() > self._ends:
            limit = f"an end within {self._limit_seconds:g} s"
            do = "send a smaller volume, or have the limit raised"
            raise TimeLimitError("run", expected=limit, got="a longer run", do=do)

    def stage(self, name: str, tiles: int = 0) -> None:  # noqa: ARG002 - the port's signature
        """See ProgressListener."""
        self.check()

    def advance(self, tiles: int) -> None:  # noqa: ARG002 - the port's signature
        """See ProgressListener."""
        self.check()


class ServiceContext:
    """The use cases, their limits, and the threads that they run in. ``stop`` is set when the process ends."""

    def __init__(self, application: Application) -> None:
        settings = application.settings.serving
        self.application, self.settings = application, settings
        self.models, self.slots = application.served_models, application.slots
        self.metrics = Metrics()
        self.aside, self.submitting = CapacityLimiter(_SIDE_WORKERS), CapacityLimiter(_SUBMISSIONS)
        self._working = CapacityLimiter(settings.slots + settings.queue + 1)
        self._sharing = CapacityLimiter(settings.slots * _SHARED_CALLS)
        self.private_paths = (application.private_path,)
        self.public = application.public
        self.jobs = JobAccess(application, self.public)
        self.stop = threading.Event()
        self.draining = Draining(settings.drain_seconds)

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit of one case."""
        return self.settings.memory_bytes or memory_limit(self.settings.slots, self.application.resources)

    def find(self, model: str | None) -> ServedModel:
        """The model of this name, or the default. Raises UnknownModelError, ModelError, BusyError."""
        if self.models.catalogue == Catalogue():
            got = "models that are being looked for"
            raise BusyError("service", expected="models that are known", got=got, retry_after_seconds=1)
        return self.models.find(model)

    def estimate(
        self,
        inputs: Sequence[str],
        model: str | None,
        options: RunOptions,
        progress: RequestProgress,
        *,
        mask: str | None = None,
    ) -> tuple[LoadedModel, Estimate]:
        """The loaded model of this name, and the estimate of a run on this machine; a ``mask`` is begun for trial."""
        speed = self.find(model).seconds_per_voxel
        loaded = self.models.take(model)
        options = replace(options, memory_bytes=self.memory_bytes)
        estimated = self.application.estimate(inputs, loaded, options, progress, seconds_per_voxel=speed, mask=mask)
        return loaded, estimated

    async def in_slot(self, request: Request, work: Callable[[RequestProgress, float], T]) -> T:
        """Run ``work`` in a slot; it receives the seconds waited for the slot, and stops if the caller disconnects.

        Raises:
            BusyError: no slot is free and the queue is full.
            TimeLimitError, CancelledError
        """

        def run(progress: RequestProgress) -> T:
            with self.slots.hold(progress.check) as waited:
                return work(progress, waited)

        return await self._watched(request, run, self._working)

    async def shared(self, request: Request, work: Callable[[RequestProgress, float], T]) -> T:
        """Run ``work``, which shares batches with other requests, in a thread of its own.

        Raises:
            BusyError: as many requests run as may.
            TimeLimitError, CancelledError
        """
        if self._sharing.available_tokens < 1:
            raise BusyError("server", expected="room in the queue", got="a full queue", retry_after_seconds=1)
        return await self._watched(request, lambda progress: work(progress, 0.0), self._sharing)

    async def without_slot(
        self, request: Request, work: Callable[[RequestProgress], T], threads: CapacityLimiter | None = None
    ) -> T:
        """Run ``work``, which infers nothing, in one of ``threads``; by default in the few threads beside the slots."""
        return await self._watched(request, work, threads or self.aside)

    @asynccontextmanager
    async def request_folder(self, files: Literal["run", "job"]) -> AsyncIterator[Path]:
        """A folder for a request's files. A job's are where the blob store takes them over without copying."""
        staging = await to_thread.run_sync(self.application.blobs.staging) if files == "job" else None
        work = staging or self.application.work_folders.new()
        folder = await to_thread.run_sync(work.__enter__)
        try:
            yield folder
        finally:
            await to_thread.run_sync(work.__exit__, None, None, None)

    async def _watched(self, request: Request, work: Callable[[RequestProgress], T], limiter: CapacityLimiter) -> T:
        progress = RequestProgress(self.settings.time_limit_seconds)
        watch = asyncio.create_task(_abandon_when_gone(request, progress))
        try:
            with self.metrics.in_flight.track_inprogress():
                return await to_thread.run_sync(work, progress, limiter=limiter)
        except asyncio.CancelledError:
            progress.abandon()
            raise
        finally:
            watch.cancel()


async def _abandon_when_gone(request: Request, progress: RequestProgress) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            progress.abandon()
            return


async def _context(request: Request) -> ServiceContext:
    context: ServiceContext = request.app.state.context
    return context


Context = Annotated[ServiceContext, Depends(_context)]
