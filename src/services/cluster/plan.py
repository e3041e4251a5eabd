"""What a run in blocks takes, before it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ...domain.run import RunOptions
from ...ports.progress import ProgressListener
from ...ports.resources import Resources
from ...ports.volume_store import VolumeStore
from ..models.loading import LoadedModel
from ..segmentation.case import Case
from ..segmentation.preparation.prepare import Prepared, open_inferer, prepare
from .run import ClusterPorts
from .sizes import BlockSizes, chosen_blocks

_CALIBRATION_TILES = 3


@dataclass(frozen=True)
class BlockPlan:
    """Estimate of a run in blocks.

    ``read_bytes`` of the volume are read by workers, some of them twice, where blocks overlap; ``sums_bytes`` pass from
    block to block, and ``pieces_bytes`` from blocks to the results, before compression. ``seconds`` is with
    ``workers`` as fast as this process; of it ``serial_seconds`` are spent here, on reading the volume: to hash it, and
    to measure the labels.
    """

    prepared: Prepared
    blocks: int
    tiles: int
    workers: int
    worker_bytes: int
    read_bytes: int
    sums_bytes: int
    pieces_bytes: int
    seconds_per_tile: float
    seconds: float
    serial_seconds: float


def plan_blocks(
    inputs: Sequence[str],
    loaded: LoadedModel,
    options: RunOptions,
    progress: ProgressListener,
    *,
    probabilities: bool,
    volumes: VolumeStore,
    resources: Resources,
    cluster: ClusterPorts,
) -> BlockPlan:
    """Plan blocks, and infer a few tiles of noise to measure the speed of this process.

    Raises:
        InputError, ModelError, UsageError, LimitError: as the run.
    """
    with ExitStack() as stack:
        progress.stage("prepare")
        workers = max(1, stack.enter_context(cluster.scheduler()).workers)
        began = time.perf_counter()
        case = Case.open(volumes, inputs, stack, options.reading)
        inferer = stack.enter_context(open_inferer(loaded, options))
        prepared = prepare(case, loaded.model.card, inferer, options, resources=None)
        reading = time.perf_counter() - began
        sizes = BlockSizes(prepared, keeps_logits=prepared.space.resamples or probabilities)
        blocks = chosen_blocks(sizes, options.memory_bytes, resources, cluster.edge, workers)
        progress.stage("calibrate", _CALIBRATION_TILES)
        per_tile = inferer.measure(prepared.plan.tile, _CALIBRATION_TILES, lambda: progress.advance(1))
        voxel = sum(case.dtype_of(channel).itemsize for channel in range(case.channels))
        share = prepared.space.oriented.voxel_count / prepared.space.grid.voxel_count
        read = sum(math.prod(blocks.part(number)[1].shape) for number in range(blocks.count))
        sums, pieces = sizes.moved_bytes(blocks)
        tiles = prepared.plan.tile_count
        return BlockPlan(
            prepared,
            blocks.count,
            tiles,
            workers,
            sizes.worker_bytes(blocks) + resources.resident_bytes(),
            int(read * share * voxel),
            sums,
            pieces,
            per_tile,
            per_tile * tiles / min(workers, blocks.count) + 2 * reading,
            2 * reading,
        )
