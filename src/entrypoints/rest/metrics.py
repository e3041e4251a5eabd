"""What is measured, for Prometheus, over all worker processes."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ...services.runtimes import LoadedModel
from ...services.segment import Segmentation

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
            "Seconds by stage: queued, read, prepare, score, measure, write.",
            (*by_model, "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._speed = Histogram(
            "voxport_tiles_per_second",
            "Tiles scored in a second.",
            by_model,
            buckets=_TILES_PER_SECOND,
            registry=registry,
        )
        self._tiles = Counter("voxport_tiles", "Tiles scored.", by_model, registry=registry)
        self._refused = Counter(
            "voxport_refused", "Requests answered by a problem, by kind.", ("kind",), registry=registry
        )

    def scored(self, loaded: LoadedModel, done: Segmentation, queued_seconds: float) -> None:
        """Count a finished run."""
        labels = loaded.model.card.reference, f"{loaded.runtime.name} {loaded.runtime.precision}"
        for stage, seconds in {"queued": queued_seconds, **done.seconds}.items():
            self._stages.labels(*labels, stage).observe(seconds)
        tiles = done.prepared.plan.tile_count
        self._tiles.labels(*labels).inc(tiles)
        self._speed.labels(*labels).observe(tiles / max(done.seconds["score"], 1e-9))

    def refused(self, kind: str) -> None:
        """Count a request that was answered by a problem."""
        self._refused.labels(kind).inc()

    def shown(self) -> bytes:
        """All values in Prometheus' text format; with several processes, as BentoML has them, those of all."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
