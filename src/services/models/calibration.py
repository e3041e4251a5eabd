"""Calibration volumes for tuning, small enough to be inferred many times."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.geometry.grid import Box, Grid, Shape3, shape3
from ...domain.intensity import ShiftScale, Step, Window, ZScore
from ...domain.reading import Reading
from ...domain.volume import Volume
from ...ports.runtime import InferenceRuntime
from ...ports.volume_store import ArrayStore, VolumeStore
from ..segmentation.case import Case

# Voxels along whole axes: of noise, and the maximum.
_WHOLE_NOISE, _WHOLE_MOST = 64, 512
_MOST_INPUTS = 8


def put_volumes(
    references: Sequence[str], card: ModelCard, source: VolumeStore, target: ArrayStore, reading: Reading | None = None
) -> list[str]:
    """Copy the centre of a case to memory, at most one and a half patches long, so that tiles overlap.

    Raises:
        InputError: a volume cannot be read, or the case does not fit the card.
    """
    names = []
    with ExitStack() as stack:
        case = Case.open(source, references, stack, reading)
        case.check_fits(card)
        box = _middle(case.grid.shape, _stored_patch(card, case.grid))
        for number, opened in enumerate(case.sources):
            name = f"calibration {number}"
            target.put(name, Volume(opened.read(box), Grid(box.shape, case.grid.affine, case.grid.unit)))
            names.append(name)
    return names


def put_noise(card: ModelCard, target: ArrayStore) -> list[str]:
    """Store smooth, reproducible noise in the range of each channel's first step, one file a channel."""
    from scipy.ndimage import gaussian_filter

    shape = shape3(edge + edge // 2 if edge else _WHOLE_NOISE for edge in card.tiling.patch)
    spacing = [length or 1.0 for length in card.input.spacing or (1.0, 1.0, 1.0)]
    names = []
    for channel in range(card.input.source_count):
        name = f"noise {channel}"
        slow = gaussian_filter(np.random.default_rng(channel).standard_normal(shape, np.float32), 4)
        spread: NDArray[np.float32] = (slow - slow.min()) / np.ptp(slow)
        low, high = _range(next((card.input.steps(c) for c in card.input.channels if c.source == channel), ()))
        unit = card.input.spacing_unit or "mm"
        target.put(name, Volume(low + spread * (high - low), Grid(shape, np.diag([*spacing, 1.0]), unit)))
        names.append(name)
    return names


class Recorder:
    """A runtime that records batches: all at first, then fewer and fewer, at most eight."""

    def __init__(self, runtime: InferenceRuntime) -> None:
        self.inputs: list[NDArray[np.float32]] = []
        self.name, self.version, self.device = runtime.name, runtime.version, runtime.device
        self.precision, self.input_shape, self.close = runtime.precision, runtime.input_shape, runtime.close
        self._runtime = runtime
        self._every, self._seen = 1, 0

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See InferenceRuntime."""
        if self._seen % self._every == 0:
            self.inputs.append(batch.copy())
            if len(self.inputs) > _MOST_INPUTS:
                self.inputs = self.inputs[::2]
                self._every *= 2
        self._seen += 1
        return self._runtime.infer(batch)


def _middle(shape: Shape3, patch: tuple[int | None, ...]) -> Box:
    edges = [min(n, e + e // 2 if e else _WHOLE_MOST) for n, e in zip(shape, patch, strict=True)]
    start = shape3((n - e) // 2 for n, e in zip(shape, edges, strict=True))
    return Box(start, shape3(s + e for s, e in zip(start, edges, strict=True)))


def _stored_patch(card: ModelCard, grid: Grid) -> tuple[int | None, ...]:
    """Return the approximate patch along the stored axes, with spacings in the volume's unit."""
    patch = list(card.tiling.patch)
    if card.input.spacing is not None:
        # 1.5 times the patch, in stored voxels, also if resampling changes their number.
        finest = min(grid.spacing)
        patch = [
            e and max(e, round(e * (s or finest) / finest)) for e, s in zip(patch, card.input.spacing, strict=True)
        ]
    if card.input.orientation is None:
        return tuple(patch)
    back = grid.reorientation_to(card.input.orientation).inverse()
    edges = back.apply_shape(shape3(e or 0 for e in patch))
    return tuple(e or None for e in edges)


def _range(steps: Sequence[Step]) -> tuple[float, float]:
    first = steps[0] if steps else None
    if isinstance(first, ZScore):
        first = first.given or first
    if isinstance(first, Window):
        return first.low, first.high
    if isinstance(first, ShiftScale) and first.scale:
        ends = (-first.shift, 1 / first.scale - first.shift)  # values that map to 0 and 1
        return min(ends), max(ends)
    return (0.0, 255.0) if first is not None else (0.0, 1.0)
