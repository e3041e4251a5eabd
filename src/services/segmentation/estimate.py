"""Foretell a run: tiles, peak memory, time, warnings. Nothing is segmented."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ...domain.run import RunOptions
from ...ports.progress import ProgressListener
from ...ports.scratch import Scratch
from ...ports.volume_store import VolumeStore
from .. import machine
from ..models.loading import LoadedModel
from .case import Case
from .inference import Inferer
from .prepare import Prepared, open_inferer, prepare

_CALIBRATION_TILES = 3


@dataclass(frozen=True)
class Estimate:
    """What a run would take on this machine; less where tiles are of one value, as these are scored once."""

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
    scratch: Scratch | None = None,
    seconds_per_voxel: float | None = None,
) -> Estimate:
    """Read the case's headers and values, plan, and score a few tiles of noise to measure speed and memory.

    With ``scratch`` as segmenting has it. Where ``seconds_per_voxel`` says how fast the network is, nothing is scored.

    Raises:
        InputError, ModelError, UsageError, LimitError: as segmenting would.
    """
    with ExitStack() as stack:
        progress.stage("prepare")
        began = time.perf_counter()
        case = Case.open(volumes, inputs, stack)
        inferer = stack.enter_context(open_inferer(loaded, options))
        prepared = prepare(case, loaded.model.card, inferer, options, loaded.tuned, has_scratch=scratch is not None)
        reading = time.perf_counter() - began
        if seconds_per_voxel is None:
            per_tile = _seconds_per_tile(prepared, inferer, progress)
        else:
            per_tile = seconds_per_voxel * math.prod(prepared.plan.tile)
    # Reading and writing each take about as long as the survey did.
    seconds = per_tile * prepared.plan.tile_count + 3 * reading
    peak = machine.peak_resident_bytes() + prepared.stitching_bytes
    warnings = tuple(filter(None, (loaded.warning, *prepared.warnings)))
    return Estimate(prepared, seconds, per_tile, peak, warnings)


def _seconds_per_tile(prepared: Prepared, inferer: Inferer, progress: ProgressListener) -> float:
    """The least time that a call took, divided by its tiles; the first call warms up and is not counted."""
    shape = (inferer.batch, len(prepared.card.input.channels), *prepared.plan.tile)
    noise = np.random.RandomState(0).random_sample(shape).astype(np.float32)
    progress.stage("calibrate", _CALIBRATION_TILES)
    taken = []
    for _ in range(_CALIBRATION_TILES):
        began = time.perf_counter()
        inferer(noise)
        taken.append(time.perf_counter() - began)
        progress.advance(1)
    return min(taken[1:]) / inferer.batch
