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
from ...domain.intensity import ChannelSurvey, apply
from ...domain.labels.label_map import Output
from ...domain.run import AXES, LARGEST_OVERLAP, RunOptions
from ...ports.resources import Resources
from ..models.loading import LoadedModel
from .case import Case, survey
from .inference import Fixed3, Inferer
from .model_view import Fitted, ModelView, open_view

# Rows of tiles along an axis from which visiting it saves memory.
_SEVERAL_ROWS = 4
# Share of the free memory and scratch space; the rest is for the network's activations and for other processes.
_FREE_SHARE = 0.5
# Voxels through the network for each voxel that a volume may have. The largest overlap takes each voxel 64 times.
_LARGEST_EFFORT = 64
# Normalised values beyond this are to blame for logits out of range.
_LARGEST_NORMALISED = 1e4


@dataclass(frozen=True)
class Prepared:
    """A case with its tile plan and fitted intensity steps, ready for inference."""

    card: ModelCard
    view: ModelView
    channels: tuple[ChannelSurvey, ...]
    fitted: Fitted
    plan: TilePlan
    overlap: float
    stitching_bytes: int
    warnings: tuple[str, ...]
    options: RunOptions
    batch: int = 1
    ranges: tuple[tuple[float, float], ...] = ()

    @property
    def returned(self) -> Output:
        """The output of the values that are brought back to the stored grid: logits, or probabilities."""
        output = self.card.output
        return output.activated if self.space.resamples and output.resample == "probabilities" else output

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
    def case(self) -> Case:
        """The whole case."""
        return self.view.case

    @property
    def space(self) -> ModelSpace:
        """The model's space of the part of the case that is segmented."""
        return self.view.space

    @property
    def crop(self) -> Box | None:
        """The stored voxels that are segmented, of a card that crops; the others are background."""
        return None if self.card.input.crop is None else self.view.box

    @property
    def nan_as(self) -> float | None:
        """Value taken for NaN and Inf."""
        return self.options.nan_as

    def planes(self) -> Iterator[NDArray[np.float32]]:
        """Yield the normalised network input in model space as planes ``(C, A, B)`` along the plan's axis."""
        return self.view.planes(self.fitted, self.plan.axis)

    def stored_box(self, oriented: Box) -> Box:
        """Return the stored voxels of a box of the oriented grid."""
        return self.view.stored_box(oriented)


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
    view, cropping = open_view(case, card, options.nan_as)
    space, channels = view.space, survey(case, options.nan_as)
    within = channels if view.box == Box.whole(case.grid.shape) else survey(case, options.nan_as, view.box)
    slowest = case.sources[0].slowest_axis
    fewest_reads_first = sorted(range(3), key=lambda axis: abs(axis - slowest))
    axes = [space.model_axis(axis) for axis in fewest_reads_first]
    fitted = view.fit(within, axes[0])
    plan, overlap, needed, notes = _planned(card, space, inferer, options, axes, resources, scratch_bytes)
    _check_effort(case, plan)
    ranges = _normalised_ranges(case, card, within, fitted)
    warnings = (
        *case.notes,
        *cropping,
        *preflight_warnings(case.grid, [channel.stored for channel in channels], card, plan),
        *rounding_warnings(channels, card),
        *notes,
    )
    batch = inferer.batch
    return Prepared(card, view, channels, fitted, plan, overlap, needed, warnings, options, batch, ranges)


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
    case: Case, card: ModelCard, channels: Sequence[ChannelSurvey], fitted: Fitted
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

    def needed(plan: TilePlan, *, has_buffers: bool = False) -> int:
        channels, classes = len(card.input.channels), card.output.channels
        slab = slab_bytes(
            plan, channels, classes, batch=inferer.batch, assembled=space.resamples, has_buffers=has_buffers
        )
        # A mirror image of a batch, its logits, and the sum of them.
        images = inferer.batch * math.prod(plan.tile) * (channels + 2 * classes) * 4 if card.tiling.mirror else 0
        return slab + images + space.resampling_bytes(plan.axis, channels, card.output)

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
