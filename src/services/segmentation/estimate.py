"""Estimate the number of tiles, peak memory and time of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ...domain.cards.model_card import ModelCard
from ...domain.run import RunOptions
from ...ports.progress import ProgressListener
from ...ports.resources import Resources
from ...ports.scratch import Scratch
from ...ports.segmenter import Capacity, RunEstimate
from ...ports.volume_store import VolumeStore
from ..models.loading import LoadedModel
from .case import Case
from .preparation.planning import free_bytes
from .preparation.prepare import Prepared, open_inferer, prepare

_CALIBRATION_TILES = 3


@dataclass(frozen=True)
class Estimate:
    """Estimate of a run on this machine; constant tiles, which are inferred once, make the run shorter."""

    prepared: Prepared
    seconds: float
    seconds_per_tile: float
    peak_bytes: int
    warnings: tuple[str, ...]


def estimate(
    inputs: Sequence[str],
    loaded: LoadedModel,
    options: RunOptions,
    progress: ProgressListener,
    *,
    volumes: VolumeStore,
    resources: Resources,
    scratch: Scratch | None = None,
    seconds_per_voxel: float | None = None,
    mask: str | None = None,
) -> Estimate:
    """Read and survey the case, plan tiles, and infer a few tiles of noise to measure speed and memory.

    ``seconds_per_voxel``, if known, replaces the measurement. A ``mask`` is begun under this name and dropped: its
    format may be unable to store one of this case.

    Raises:
        InputError, ModelError, UsageError, LimitError: as `segment`. OutputError: the mask cannot be begun.
    """
    with ExitStack() as stack:
        progress.stage("prepare")
        began = time.perf_counter()
        case = Case.open(volumes, inputs, stack, options.reading)
        inferer = stack.enter_context(open_inferer(loaded, options))
        free = None if scratch is None else scratch.available_bytes()
        prepared = prepare(case, loaded.model.card, inferer, options, resources=resources, scratch_bytes=free)
        reading = time.perf_counter() - began
        if mask is not None:
            table = prepared.card.output.table
            volumes.create(mask, case.grid, table.dtype, like=case.sources[0], labels=table).close()
        if seconds_per_voxel is None:
            progress.stage("calibrate", _CALIBRATION_TILES)
            per_tile = inferer.measure(prepared.plan.tile, _CALIBRATION_TILES, lambda: progress.advance(1))
        else:
            per_tile = seconds_per_voxel * math.prod(prepared.plan.tile)
    peak = resources.peak_resident_bytes() + prepared.stitching_bytes
    return Estimate(prepared, _run_seconds(prepared, per_tile, reading), per_tile, peak, _all(loaded.warning, prepared))


def capacity_of(
    loaded: LoadedModel, seconds_per_voxel: float, memory_bytes: int | None, *, resources: Resources
) -> Capacity:
    """Return the speed and memory that this process offers to a run."""
    with open_inferer(loaded, RunOptions()) as inferer:
        fixed, batch, patch = inferer.fixed, inferer.batch, inferer.patch
    free, resident = free_bytes(memory_bytes, resources), resources.peak_resident_bytes()
    return Capacity(seconds_per_voxel, fixed, batch, patch, free, resident, loaded.warning)


def estimate_elsewhere(
    inputs: Sequence[str],
    card: ModelCard,
    capacity: Capacity,
    options: RunOptions,
    progress: ProgressListener,
    *,
    volumes: VolumeStore,
    resources: Resources,
) -> RunEstimate:
    """Estimate a run on another machine from a case that is stored here. Raises the errors of the run."""
    with ExitStack() as stack:
        progress.stage("prepare")
        began = time.perf_counter()
        case = Case.open(volumes, inputs, stack, options.reading)
        options = replace(options, memory_bytes=capacity.free_bytes + resources.resident_bytes())
        prepared = prepare(case, card, capacity, options, resources=resources, scratch_bytes=math.inf)
        reading = time.perf_counter() - began
    seconds = _run_seconds(prepared, capacity.seconds_per_voxel * math.prod(prepared.plan.tile), reading)
    peak = capacity.resident_bytes + prepared.stitching_bytes
    return RunEstimate(prepared.plan.tile_count, seconds, peak, _all(capacity.warning, prepared))


def _run_seconds(prepared: Prepared, per_tile: float, reading: float) -> float:
    # Reading and writing each take about as long as the survey.
    return per_tile * prepared.plan.tile_count + 3 * reading


def _all(warning: str | None, prepared: Prepared) -> tuple[str, ...]:
    return tuple(filter(None, (warning, *prepared.warnings)))
