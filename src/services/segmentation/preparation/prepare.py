"""Prepare a run: crop an open case, fit the intensity steps to it, and plan tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ....domain.cards.model_card import Channel, ModelCard
from ....domain.cards.preflight import preflight_warnings, rounding_warnings
from ....domain.errors import InputError, LimitError, VoxportError
from ....domain.geometry.grid import Box
from ....domain.geometry.model_space import ModelSpace
from ....domain.inference.patches import TilePlan
from ....domain.inference.sliding_window import LogitRangeError
from ....domain.intensity import ChannelSurvey, apply
from ....domain.labels.label_map import Output
from ....domain.run import RunOptions
from ....ports.resources import Resources
from ...models.loading import LoadedModel
from ..case import Case, survey
from ..inference import Inferer
from .model_view import Fitted, ModelView, open_view
from .planning import TakesPatches, planned

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
    resources: Resources | None,
    scratch_bytes: float | None = None,
    surveyed: tuple[ChannelSurvey, ...] | None = None,
    more_channels: int = 0,
) -> Prepared:
    """Survey the case, fit the card's intensity steps, and plan tiles within the memory limit.

    ``scratch_bytes``: free space for large arrays outside memory; None to keep them in memory. Without ``resources``,
    memory does not limit the plan. ``surveyed`` is the survey of the channels, where it is known. ``more_channels``
    are blended beside the logits.

    Raises:
        InputError: the case does not fit the card, or holds NaN or Inf without ``nan_as``.
        UsageError: an option conflicts with the card or the network.
        LimitError: no plan fits ``memory_bytes``; the plan takes too much scratch space or too many voxels.
    """
    case.check_fits(card)
    if options.threshold is not None:
        card = replace(card, output=card.output.with_threshold(options.threshold))
    view, cropping = open_view(case, card, options.nan_as)
    space, channels = view.space, surveyed or survey(case, options.nan_as)
    within = channels if view.box == Box.whole(case.grid.shape) else survey(case, options.nan_as, view.box)
    slowest = case.sources[0].slowest_axis
    fewest_reads_first = sorted(range(3), key=lambda axis: abs(axis - slowest))
    axes = [space.model_axis(axis) for axis in fewest_reads_first]
    fitted = view.fit(within, axes[0])
    plan, overlap, needed, notes = planned(
        card, space, inferer, options, axes, resources, scratch_bytes, case.reading_bytes, more_channels
    )
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
