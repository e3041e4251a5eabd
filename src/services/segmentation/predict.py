"""Segment a case whose results stay in memory: stored volumes, or arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.errors import InputError
from ...domain.geometry.grid import UNITS, FloatArray, Grid, shape3
from ...domain.labels.label_map import LabelMap, Logits
from ...domain.labels.statistics import LabelStatistics
from ...domain.labels.uncertainty import Levels
from ...domain.reading import LONGEST, SHORTEST, Reading
from ...domain.run import Outputs, RunOptions
from ...domain.volume import Volume
from ...ports.progress import ProgressListener
from ...ports.volume_store import ArrayStore, VolumeSource, VolumeStore
from ..models.loading import LoadedModel
from .segment import Segmentation, SegmentPorts, segment

_VOLUME, _MASK, _PROBABILITIES = "volume", "mask in memory", "probabilities in memory"
_UNCERTAINTY = "uncertainty in memory"


@dataclass(frozen=True)
class Prediction:
    """A segmented case.

    ``labels`` is the label map ``(X, Y, Z)``; ``probabilities`` are ``(K, X, Y, Z)`` float32, one channel a class, or
    None; ``done`` is the run: plan, times, hashes, and where to look first. ``uncertainty`` holds entropy, margin
    and disagreement ``(3, X, Y, Z)`` in per cent, or None.
    """

    labels: LabelMap
    probabilities: Logits | None
    done: Segmentation
    uncertainty: Levels | None = None

    @property
    def statistics(self) -> tuple[LabelStatistics, ...]:
        """Statistics of each label."""
        return self.done.statistics

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the case, the model and the run."""
        return self.done.warnings


def predict(
    case: Sequence[str | Volume],
    loaded: LoadedModel,
    options: RunOptions,
    progress: ProgressListener,
    *,
    probabilities: bool,
    uncertainty: bool = False,
    ports: SegmentPorts,
    new_store: Callable[[], ArrayStore],
) -> Prediction:
    """Segment a case of stored volumes, by reference, and of volumes in memory. Raises the errors of ``segment``."""
    memory, inputs = new_store(), []
    for number, given in enumerate(case, 1):
        name = given if isinstance(given, str) else _VOLUME if len(case) == 1 else f"{_VOLUME} {number}"
        inputs.append(name)
        if not isinstance(given, str):
            memory.put(name, given)
    held = {name for name, given in zip(inputs, case, strict=True) if not isinstance(given, str)}
    store = _IntoMemory(ports.volumes, memory, held | {_MASK, _PROBABILITIES, _UNCERTAINTY})
    outputs = Outputs(
        _MASK, _PROBABILITIES if probabilities else None, uncertainty=_UNCERTAINTY if uncertainty else None
    )
    done = segment(inputs, loaded, outputs, options, progress, ports=replace(ports, volumes=store))
    mask = memory.get(_MASK)
    labels = LabelMap(mask.array[0], mask.grid, loaded.model.card.output.table)
    found = [memory.get(name).array if name else None for name in (outputs.probabilities, outputs.uncertainty)]
    return Prediction(labels, found[0], done, found[1])


class _IntoMemory:
    """A VolumeStore that opens stored volumes and those held in memory, and creates all in memory."""

    def __init__(self, stored: VolumeStore, memory: ArrayStore, held: set[str]) -> None:
        self._stored, self._memory, self._held = stored, memory, held
        self.names, self.max_voxels, self.create = memory.names, stored.max_voxels, memory.create

    def recognises(self, reference: str) -> bool:
        """See VolumeStore.recognises."""
        return self._holder(reference).recognises(reference)

    def places(self, reference: str) -> tuple[str, ...]:
        """See VolumeStore.places."""
        return self._holder(reference).places(reference)

    def open(self, reference: str, reading: Reading | None = None) -> VolumeSource:
        """See VolumeStore.open."""
        return self._holder(reference).open(reference, reading)

    def _holder(self, reference: str) -> VolumeStore:
        return self._memory if reference in self._held else self._stored


def array_volume(
    array: NDArray[Any], *, unit: str, spacing: Sequence[float] | None = None, affine: FloatArray | None = None
) -> Volume:
    """Put an array ``(X, Y, Z)`` or ``(C, X, Y, Z)`` on a grid.

    Args:
        array: real numbers.
        unit: of spacing and affine.
        spacing: of the voxels along the array's axes, which then run to the right, anterior and superior.
        affine: ``(4, 4)``, from voxel index to RAS+ world; in place of ``spacing``.

    Raises:
        InputError: another number of axes, no voxels, no real numbers, no such unit, or no usable grid.
    """
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
    if unit not in UNITS:
        raise InputError("unit", expected=f"one of {', '.join(UNITS)}", got=unit[:40], do="correct it")
    values = array.astype(np.uint8) if array.dtype.kind == "b" else array
    # x fastest, as in a NIfTI file: sums then run in the same order, and results are the same to the last bit
    values = np.ascontiguousarray(np.swapaxes(values, -1, -3)).swapaxes(-1, -3)
    return Volume(values, Grid(shape3(values.shape[-3:]), _affine(spacing, affine), unit))


def _affine(spacing: Sequence[float] | None, affine: FloatArray | None) -> FloatArray:
    """The affine of a spacing, or the one given. InputError where no grid can be computed with it."""
    if affine is None:
        lengths = [] if spacing is None else [float(step) for step in spacing]
        found, subject, got = np.diag([*lengths, 1.0]), "spacing", str(lengths)
    else:
        found, subject = np.asarray(affine, np.float64), "affine"
        got = f"shape {found.shape}" if found.shape != (4, 4) else str(found[:3].tolist())
        lengths = [] if found.shape != (4, 4) else np.linalg.norm(found[:3, :3], axis=0).tolist()
    # False for NaN as well
    usable = len(lengths) == 3 and all(SHORTEST <= step <= LONGEST for step in lengths)
    if not usable or max(lengths) > LONGEST * min(lengths):
        expected = f"three positive lengths, {SHORTEST:g} to {LONGEST:g}, and none {LONGEST:g} times another"
        raise InputError(subject, expected=expected, got=got, do="correct it")
    if np.linalg.matrix_rank(found[:3, :3]) < 3 or not np.isfinite(found).all():
        raise InputError(subject, expected="a finite, invertible matrix (4, 4)", got=got, do="correct it")
    return found
