"""Segment an array in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.errors import InputError
from ...domain.geometry.grid import UNITS, Grid, shape3
from ...domain.labels.label_map import LabelMap, Logits
from ...domain.run import LONGEST, SHORTEST, Outputs, RunOptions
from ...domain.volume import Volume
from ...ports.progress import ProgressListener
from ...ports.volume_store import ArrayStore
from ..models.loading import LoadedModel
from .segment import Segmentation, SegmentPorts, segment

# Bounds of a voxel's edge in any unit.
_VOLUME, _MASK, _PROBABILITIES = "volume", "mask", "probabilities"


@dataclass(frozen=True)
class Prediction:
    """The labels of an array, its probabilities ``(K, X, Y, Z)`` if requested, and the result of the run."""

    labels: LabelMap
    probabilities: Logits | None
    done: Segmentation


def predict(
    array: NDArray[Any],
    spacing: tuple[float, float, float],
    unit: str,
    loaded: LoadedModel,
    options: RunOptions,
    progress: ProgressListener,
    *,
    probabilities: bool,
    ports: SegmentPorts,
    new_store: Callable[[], ArrayStore],
) -> Prediction:
    """Segment an array ``(X, Y, Z)`` or ``(C, X, Y, Z)`` in RAS+ orientation.

    Raises:
        InputError: another number of axes, no voxels, or values that are not real numbers.
        As `segment` otherwise.
    """
    store = new_store()
    store.put(_VOLUME, _volume(array, spacing, unit))
    outputs = Outputs(_MASK, _PROBABILITIES if probabilities else None)
    done = segment([_VOLUME], loaded, outputs, options, progress, ports=replace(ports, volumes=store, scratch=None))
    mask = store.get(_MASK)
    labels = LabelMap(mask.array[0], mask.grid, loaded.model.card.output.table)
    return Prediction(labels, store.get(_PROBABILITIES).array if probabilities else None, done)


def _is_spacing(spacing: Sequence[float]) -> bool:
    """Return whether lengths are within bounds and ratios."""
    # False for NaN as well.
    return all(SHORTEST <= step <= LONGEST for step in spacing) and max(spacing) <= LONGEST * min(spacing)


def _volume(array: NDArray[Any], spacing: tuple[float, float, float], unit: str) -> Volume:
    if array.ndim not in (3, 4) or array.size == 0:
        raise InputError(
            _VOLUME,
            expected="a non-empty array (x, y, z) or (channel, x, y, z)",
            got=f"shape {array.shape}",
            do="give every axis, also one of length 1",
        )
    if array.dtype.kind not in "iufb" or array.dtype.itemsize > 8:
        do = "convert it to integers or floats"
        raise InputError(_VOLUME, expected="real numbers", got=str(array.dtype), do=do)
    if not _is_spacing(spacing):
        expected = f"three positive lengths, {SHORTEST:g} to {LONGEST:g}, and none {LONGEST:g} times another"
        raise InputError("spacing", expected=expected, got=str(list(spacing)), do="correct it")
    if unit not in UNITS:
        raise InputError("unit", expected=f"one of {', '.join(UNITS)}", got=unit[:40], do="correct it")
    values = array.astype(np.uint8) if array.dtype.kind == "b" else array
    return Volume(values, Grid(shape3(values.shape[-3:]), np.diag([*spacing, 1.0]), unit))
