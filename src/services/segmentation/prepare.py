"""Prepare a run: fit the intensity steps to an open case, and plan tiles within the limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import Channel, ModelCard
from ...domain.cards.preflight import preflight_warnings, rounding_warnings
from ...domain.errors import InputError, LimitError, UsageError, VoxportError
from ...domain.geometry.grid import Box, Shape3, shape3
from ...domain.geometry.model_space import ModelSpace
from ...domain.inference.patches import TilePlan, Tiling, plan_tiles
from ...domain.inference.sliding_window import LogitRangeError, slab_bytes
from ...domain.intensity import ChannelSurvey, Pointwise, apply, fit
from ...domain.run import AXES, LARGEST_OVERLAP, RunOptions
from ...ports.resources import Resources
from ..models.loading import LoadedModel
from .case import Case, finite, slabs, survey
from .inference import Fixed3, Inferer

# Rows of tiles along an axis from which visiting it saves memory.
_SEVERAL_ROWS = 4
# Share of the free memory and scratch space; the rest is for the network's activations and for other processes.
_FREE_SHARE = 0.5
# Voxels through the network for each voxel that a volume may have. The largest overlap takes each voxel 64 times.
_LARGEST_EFFORT = 64
# Spacings that differ by this factor, on average over the axes, are taken for a mistake in the unit.
_WRONG_UNIT = 100.0
_UNIT_NAMES = {"mm": "mm", "um": "micron", "unknown": "unknown"}
# Normalised values beyond this are to blame for logits out of range.
_LARGEST_NORMALISED = 1e4


@dataclass(frozen=True)
class Prepared:
    """A case with its tile plan and fitted intensity steps, ready for inference."""

    case: Case
    card: ModelCard
    space: ModelSpace
    channels: tuple[ChannelSurvey, ...]
    fitted: tuple[tuple[Pointwise, ...], ...]
    plan: TilePlan
    overlap: float
    stitching_bytes: int
    warnings: tuple[str, ...]
    options: RunOptions
    batch: int = 1
    ranges: tuple[tuple[float, float], ...] = ()

    def blame(self, error: LogitRangeError) -> VoxportError:
        """Return an InputError that names the channel whose values took the logits out of range, else the error."""
        for channel, reach in zip(self.card.input.channels, self.ranges, strict=False):
            if max(map(abs, reach)) > _LARGEST_NORMALISED:
                found = self.channels[channel.source].stored
                return _beyond(
                    self.case, channel, found, reach, f"values that the network takes ({error.got} came out)"
                )
        return error

    @property
    def nan_as(self) -> float | None:
        """Value taken for NaN and Inf."""
        return self.options.nan_as

    def planes(self) -> Iterator[NDArray[np.float32]]:
        """Yield the normalised network input in model space as planes ``(C, A, B)`` along the plan's axis."""
        return self.space.resampling.planes(self._oriented_planes(), self.plan.axis)

    def stored_box(self, oriented: Box) -> Box:
        """Return the stored voxels of a box of the oriented grid."""
        return self.space.reorientation.source_box(oriented, self.case.grid.shape)

    def _oriented_planes(self) -> Iterator[NDArray[np.float32]]:
        axis, change = self.plan.axis, self.space.reorientation
        for oriented in slabs(self.space.oriented, axis):
            stored = self.case.read(self.stored_box(oriented))
            normal = [
                apply(fitted, finite(change.apply(stored[channel.source]), self.nan_as))
                for channel, fitted in zip(self.card.input.channels, self.fitted, strict=True)
            ]
            yield from iter(np.moveaxis(np.stack(normal), 1 + axis, 0))


class TakesPatches(Protocol):
    """The fixed sizes (x, y, z) of a network's input, None where free, its patches per call, and the tuned patch."""

    @property
    def fixed(self) -> Fixed3: ...  # noqa: D102

    @property
    def batch(self) -> int: ...  # noqa: D102

    @property
    def patch(self) -> Shape3 | None: ...  # noqa: D102


def open_inferer(loaded: LoadedModel, options: RunOptions) -> Inferer:
    """Return an `Inferer`. The batch is the option's, else the tuned one if the patch is tuned as well."""
    tuned = loaded.tuned
    batch = options.batch or (tuned.batch if tuned and options.patch is None else None)
    return Inferer(loaded.runtime, loaded.model.card, batch, tuned.patch if tuned else None)


def prepare(
    case: Case,
    card: ModelCard,
    inferer: TakesPatches,
    options: RunOptions,
    *,
    resources: Resources,
    scratch_bytes: float | None = None,
) -> Prepared:
    """Survey the case, fit the card's intensity steps, and plan tiles within the memory limit.

    ``scratch_bytes``: free space for large arrays outside memory; None to keep them in memory.

    Raises:
        InputError: the case does not fit the card, or holds NaN or Inf without ``nan_as``.
        UsageError: an option conflicts with the card or the network.
        LimitError: no plan fits ``memory_bytes``; the plan takes too much scratch space or too many voxels.
    """
    case.check_fits(card)
    if options.threshold is not None:
        card = replace(card, output=card.output.with_threshold(options.threshold))
    space = _space(case, card)
    channels = survey(case, options.nan_as)
    fitted = tuple(fit(card.input.steps(c), channels[c.source].chunks) for c in card.input.channels)
    slowest = case.sources[0].slowest_axis
    fewest_reads_first = sorted(range(3), key=lambda axis: abs(axis - slowest))
    axes = [space.model_axis(axis) for axis in fewest_reads_first]
    plan, overlap, needed, notes = _planned(card, space, inferer, options, axes, resources, scratch_bytes)
    _check_effort(case, plan)
    ranges = _normalised_ranges(case, card, channels, fitted)
    warnings = (
        *case.notes,
        *preflight_warnings(case.grid, [channel.stored for channel in channels], card, plan),
        *rounding_warnings(channels, card),
        *notes,
    )
    batch = inferer.batch
    return Prepared(case, card, space, channels, fitted, plan, overlap, needed, warnings, options, batch, ranges)


def _space(case: Case, card: ModelCard) -> ModelSpace:
    """Return the model's space. Raises InputError for a spacing or unit that cannot be right, or LimitError."""
    space, wanted = ModelSpace.of(case.grid, card.input), card.input
    if wanted.spacing is None or not space.resamples:
        return space
    subject, stored, grid = " + ".join(case.references), case.grid, space.grid
    longer = (stored.voxel_volume / grid.voxel_volume) ** (1 / 3)
    unit = "a spacing" if stored.unit == "unknown" else f"a spacing in {stored.unit}"
    if not 1 / _WRONG_UNIT < longer < _WRONG_UNIT:
        names = " x ".join(f"{length:.4g}" for length in stored.spacing)
        raise InputError(
            subject,
            expected=f"{unit} near the model's {' x '.join(f'{s:g}' for s in wanted.spacing)} {wanted.spacing_unit}",
            got=f"{names}, {longer if longer > 1 else 1 / longer:.3g} times {'as long' if longer > 1 else 'as short'}: "
            "is the unit right?",
            do="correct the spacing, or its unit, in the file, e.g. with nibabel: i = nibabel.load(FILE); "
            f"i.header.set_xyzt_units('{_UNIT_NAMES[wanted.spacing_unit or 'unknown']}'); nibabel.save(i, NEW_FILE)",
        )
    if grid.voxel_count == 1 < stored.voxel_count:
        raise InputError(
            subject,
            expected="a volume of several of the model's voxels",
            got=f"{'x'.join(map(str, stored.shape))} voxels, less than one of the model's in all",
            do="correct its spacing, or take a model for this spacing",
        )
    if (count := grid.voxel_count * len(wanted.channels)) > case.max_voxels:
        raise LimitError(
            subject,
            expected=f"at most {case.max_voxels} voxels at the model's spacing",
            got=f"{count}",
            do="check its spacing, crop it, or raise the limit max_voxels",
        )
    return space


def _check_effort(case: Case, plan: TilePlan) -> None:
    """LimitError for more voxels through the network than the largest volume has at the largest overlap."""
    if (count := plan.tile_count * math.prod(plan.tile)) > (most := _LARGEST_EFFORT * case.max_voxels):
        raise LimitError(
            " + ".join(case.references),
            expected=f"at most {most} voxels through the network, {_LARGEST_EFFORT} times the limit max_voxels",
            got=f"{count}: is its spacing right?",
            do="correct its spacing, crop it, set a smaller `patch` or `overlap`, or raise the limit max_voxels",
        )


def _normalised_ranges(
    case: Case, card: ModelCard, channels: Sequence[ChannelSurvey], fitted: Sequence[Sequence[Pointwise]]
) -> tuple[tuple[float, float], ...]:
    """Return the range of each input channel after its monotonic steps. InputError if beyond single precision."""
    ranges = []
    for channel, steps in zip(card.input.channels, fitted, strict=True):
        found = channels[channel.source]
        ends = apply(steps, np.array([found.low, found.high], np.float32))
        reach = float(ends.min()), float(ends.max())
        if not np.isfinite(ends).all():
            raise _beyond(case, channel, found.stored, reach, "finite values after the model's intensity steps")
        ranges.append(reach)
    return tuple(ranges)


def _beyond(
    case: Case, channel: Channel, stored: tuple[float, float], reach: tuple[float, float], expected: str
) -> InputError:
    return InputError(
        " + ".join(case.references),
        expected=expected,
        got=f"{channel.name} from {stored[0]:g} to {stored[1]:g}, normalised {reach[0]:g} to {reach[1]:g}",
        do="replace fill values, e.g. with numpy.where, by a value of the background",
    )


def _planned(
    card: ModelCard,
    space: ModelSpace,
    inferer: TakesPatches,
    options: RunOptions,
    axes: Sequence[int],
    resources: Resources,
    scratch_bytes: float | None,
) -> tuple[TilePlan, float, int, tuple[str, ...]]:
    """Return plan, overlap, stitching bytes and notes, with the card's patch if the tuned one does not fit."""
    if inferer.patch is not None and options.patch is None:
        with suppress(LimitError):
            patched = replace(options, patch=inferer.patch)
            return _planned(card, space, inferer, patched, axes, resources, scratch_bytes)
    tiling = _tiling(card.tiling, options, inferer.fixed, space.grid.shape)
    plan = plan_tiles(space.grid.shape, tiling, fixed=inferer.fixed)
    plan = replace(plan, axis=_visiting_axis(plan, axes) if options.axis is None else AXES.index(options.axis))
    needed = partial(
        slab_bytes,
        channels=len(card.input.channels),
        classes=card.output.channels,
        batch=inferer.batch,
        assembled=space.resamples,
    )
    in_memory = partial(needed, has_buffers=scratch_bytes is not None)
    plan, size_bytes, notes = _within_memory(plan, options, in_memory, resources)
    if scratch_bytes is not None and (outside := needed(plan) - size_bytes) > scratch_bytes * _FREE_SHARE:
        raise LimitError(
            "scratch space",
            expected=f"at most {size(scratch_bytes * _FREE_SHARE)} for a run, half of what is free",
            got=size(outside),
            do="check the spacing of the volume, crop it, set a smaller `patch`, or free space in the scratch folder",
        )
    return plan, tiling.overlap, size_bytes, notes


def _visiting_axis(plan: TilePlan, axes: Sequence[int]) -> int:
    """Return the first of these axes with several rows of tiles, else the one with most: memory holds one row."""
    rows = [len(plan.starts[axis]) for axis in axes]
    return next((axis for axis, n in zip(axes, rows, strict=True) if n >= _SEVERAL_ROWS), axes[rows.index(max(rows))])


def _tiling(tiling: Tiling, options: RunOptions, fixed: Fixed3, shape: Shape3) -> Tiling:
    if options.overlap is not None:
        if not 0 <= options.overlap <= LARGEST_OVERLAP:
            raise UsageError(
                "overlap",
                expected=f"a fraction from 0 to {LARGEST_OVERLAP}",
                got=f"{options.overlap:g}",
                do="0.5 is usual",
            )
        tiling = replace(tiling, overlap=options.overlap)
    if options.patch is not None:
        edges = zip(options.patch, tiling.divisors, fixed, strict=True)
        if any(only is None and (edge < 1 or edge % divisor) for edge, divisor, only in edges):
            raise UsageError(
                "patch",
                expected=f"positive multiples of the model's divisor {tiling.divisor}",
                got=",".join(map(str, options.patch)),
                do="round the edges",
            )
        if any(only not in (None, edge) for only, edge in zip(fixed, options.patch, strict=True)):
            raise UsageError(
                "patch",
                expected=f"the one size that this network takes, {','.join(map(str, fixed))}",
                got=",".join(map(str, options.patch)),
                do="leave it out",
            )
        tiling = replace(tiling, patch=_shrunk(options.patch, tiling, shape))
    return tiling if options.blending is None else replace(tiling, blending=options.blending)


def _shrunk(patch: Shape3, tiling: Tiling, shape: Shape3) -> Shape3:
    """A run's own patch, where volumes are padded to the card's: a larger one does not pad them further."""
    if tiling.padding.to != "patch":
        return patch
    least = [max(edge or 0, length) for edge, length in zip(tiling.patch, tiling.rounded(shape), strict=True)]
    return shape3(map(min, patch, least))


def _within_memory(
    plan: TilePlan, options: RunOptions, bytes_of: Callable[[TilePlan], int], resources: Resources
) -> tuple[TilePlan, int, tuple[str, ...]]:
    stated, free = options.memory_bytes, free_bytes(options.memory_bytes, resources)
    needed = bytes_of(plan)
    if needed <= free:
        return plan, needed, ()
    halo = replace(plan, blending="halo")
    in_halo = bytes_of(halo)
    if options.blending is None and in_halo <= free:
        note = (
            f"blending changed from {plan.blending} to halo: blended sums would take {size(needed)}, "
            f"{size(max(free, 0))} are free for them"
        )
        return halo, in_halo, (note,)
    if stated is None and options.blending is not None:
        return plan, needed, (f"this run wants {size(needed)}, more than the {size(free)} set aside for it",)
    least = needed if options.blending is not None else min(needed, in_halo)
    raise LimitError(
        "memory" if stated is not None else "free memory",
        expected=f"at least {size(least if stated is None else least + stated - free)}",
        got=size(stated) if stated is not None else f"{size(free)} free",
        do="raise the limit, or set a smaller `patch`",
    )


def free_bytes(memory_bytes: int | None, resources: Resources) -> int:
    """Return the memory for blending: what ``memory_bytes`` leaves, or half of the free memory without a limit."""
    if memory_bytes is None:
        return int(resources.available_bytes() * _FREE_SHARE)
    return memory_bytes - resources.resident_bytes()


def memory_limit(runs: int, resources: Resources) -> int | None:
    """Return ``memory_bytes`` for each of ``runs`` concurrent runs without a stated limit; None for one."""
    share = int(resources.available_bytes() * _FREE_SHARE) // runs
    return None if runs == 1 else share + resources.resident_bytes()


def size(count: float) -> str:
    """Format a number of bytes, e.g. ``1.50 GB``."""
    for unit in ("B", "KB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
