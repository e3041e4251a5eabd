"""Measurements for Prometheus, over all worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ...domain.job import ENDED, JOB_STATES
from ...ports.job_queue import QueueStats
from ...services.models.loading import LoadedModel
from ...services.segmentation.segment import Segmentation

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_TILES_PER_SECOND = (0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Histograms of stages and speed by model and runtime, and counts of requests in flight and refused."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        by_model = ("model", "runtime")
        self.in_flight = Gauge(
            "voxport_in_flight", "Requests being worked on or waiting.", registry=registry, multiprocess_mode="livesum"
        )
        self._stages = Histogram(
            "voxport_stage_seconds",
            "Seconds by stage: queued, read, prepare, score, postprocess, measure, write.",
            (*by_model, "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._speed = Histogram(
            "voxport_tiles_per_second",
            "Tiles inferred in a second.",
            by_model,
            buckets=_TILES_PER_SECOND,
            registry=registry,
        )
        self._tiles = Counter("voxport_tiles", "Tiles inferred.", by_model, registry=registry)
        self._tensors = Histogram(
            "voxport_tensor_seconds",
            "Seconds of a call on tensors or single patches, waiting for a shared batch included.",
            by_model,
            buckets=_SECONDS,
            registry=registry,
        )
        self._refused = Counter(
            "voxport_refused", "Requests answered by a problem, by kind.", ("kind",), registry=registry
        )

    def inferred(self, loaded: LoadedModel, done: Segmentation, queued_seconds: float) -> None:
        """Count a finished run."""
        labels = loaded.model.card.reference, f"{loaded.runtime.name} {loaded.runtime.precision}"
        for stage, seconds in {"queued": queued_seconds, **done.seconds}.items():
            self._stages.labels(*labels, stage).observe(seconds)
        tiles = done.prepared.plan.tile_count
        self._tiles.labels(*labels).inc(tiles)
        self._speed.labels(*labels).observe(tiles / max(done.seconds["score"], 1e-9))

    @contextmanager
    def tensors_timed(self, model: str, runtime: str) -> Iterator[None]:
        """Time a call on tensors or patches that succeeds."""
        began = time.perf_counter()
        yield
        self._tensors.labels(model, runtime).observe(time.perf_counter() - began)

    def refused(self, kind: str) -> None:
        """Count a request that was answered by a problem."""
        self._refused.labels(kind).inc()

    def shown(self, queue: QueueStats | None) -> bytes:
        """All values of all processes, and those of the job queue, in Prometheus' text format.

        Args:
            queue: None if the job queue does not answer.
        """
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        jobs = CollectorRegistry()
        jobs.register(_JobFigures(queue))
        return generate_latest(registry) + generate_latest(jobs)


class _JobFigures(Collector):
    """The numbers of the job queue."""

    def __init__(self, queue: QueueStats | None) -> None:
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        queue = self._queue
        yield GaugeMetricFamily("voxport_job_queue_up", "Whether the job queue answers.", value=queue is not None)
        if queue is None:
            return
        counts = GaugeMetricFamily("voxport_jobs", "Jobs kept, by state.", labels=["state"])
        for state in JOB_STATES:
            counts.add_metric([state], queue.counts.get(state, 0))
        yield counts
        oldest = "Seconds since the oldest queued job was submitted."
        yield GaugeMetricFamily("voxport_jobs_oldest_queued_seconds", oldest, value=queue.oldest_queued_seconds)
        yield GaugeMetricFamily("voxport_job_workers", "Processes that run jobs.", value=queue.workers)
        yield GaugeMetricFamily("voxport_job_slots", "Jobs that they can run at once.", value=queue.slots)
        ended = CounterMetricFamily("voxport_jobs_ended", "Jobs that ended, by state.", labels=["state"])
        for state in JOB_STATES:
            if state in ENDED:
                ended.add_metric([state], queue.ended.get(state, 0))
        yield ended
