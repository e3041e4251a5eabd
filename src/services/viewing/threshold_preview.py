"""A mask by threshold, to try a viewer without a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ...domain.labels.label_map import Label, LabelTable
from ...domain.labels.statistics_file import statistics_bytes
from ...domain.reading import Reading
from ...domain.report import grid_mapping, statistics_mapping
from ...domain.run import Outputs
from ...domain.viewing.display import otsu
from ...ports.artifacts import ArtifactWriter
from ...ports.progress import ProgressListener
from ...ports.volume_store import VolumeStore
from ..segmentation.case import Case, finite, slabs, survey
from ..segmentation.segment import measure

TABLE = LabelTable((Label(1, "above threshold", "#2a9d8f"),))
_SLAB_VOXELS = 2**20


def threshold_preview(
    inputs: Sequence[str],
    outputs: Outputs,
    progress: ProgressListener,
    *,
    volumes: VolumeStore,
    artifacts: ArtifactWriter,
    reading: Reading | None = None,
) -> dict[str, Any]:
    """Label voxels above Otsu's threshold in the first channel; returns a report without model and command.

    ``reading`` says how the volumes are stored where they do not.

    ``progress`` receives slabs as tiles.

    Raises:
        InputError, LimitError, OutputError, CancelledError
    """
    began = time.perf_counter()
    with ExitStack() as stack:
        progress.stage("read")
        case = Case.open(volumes, inputs, stack, reading)
        first = survey(case, 0.0)[0]
        level = otsu(first.chunks, first.low, first.high)
        sink = stack.enter_context(volumes.create(outputs.mask, case.grid, np.dtype(np.uint8), like=case.sources[0]))
        boxes = list(slabs(case.grid, case.sources[0].slowest_axis, _SLAB_VOXELS))
        progress.stage("score", len(boxes))
        for box in boxes:
            sink.write(box, (finite(case.read_channel(0, box), 0.0) > level).astype(np.uint8))
            progress.advance(1)
        progress.stage("measure")
        statistics = measure(case, sink, TABLE, 0.0)
        progress.stage("write")
        sha256 = sink.commit()
        if outputs.statistics is not None:
            artifacts.write(outputs.statistics, statistics_bytes(outputs.statistics, statistics, case.grid))
        return {
            "schema": "voxport/threshold-preview/1",
            "threshold": level,
            "inputs": [{"name": n, "sha256": s.sha256()} for n, s in zip(inputs, case.sources, strict=True)],
            "outputs": [{"name": outputs.mask, "sha256": sha256}],
            "grid": grid_mapping(case.grid),
            "statistics": statistics_mapping(statistics, case.grid),
            "seconds": {"score": round(time.perf_counter() - began, 4)},
            "warnings": ["a threshold made this mask, no model: it is for trying the page out, not a segmentation"],
        }
