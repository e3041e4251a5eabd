"""Warnings about a case that differs from what the model card expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..geometry.grid import Grid, unit_factor
from ..inference.patches import TilePlan
from ..intensity import ChannelSurvey, Rescale, ShiftScale, Window, ZScore
from .model_card import ModelCard

_FAR_SPACING = 2.0
# Share of a channel's range that a window must keep, and largest absolute value after scaling.
_LEAST_KEPT = 0.01
_LARGEST_SCALED = 100.0
# Levels of a channel's range that single precision must tell apart.
_LEAST_LEVELS = 256


def preflight_warnings(
    grid: Grid, ranges: Sequence[tuple[float, float]], card: ModelCard, plan: TilePlan
) -> tuple[str, ...]:
    """Return one sentence for each mismatch. None of them stops a run.

    ``ranges`` holds the lowest and the highest value of each stored channel.
    """
    return (*_spacing(grid, card), *_slices(plan), *_intensity(ranges, card))


def rounding_warnings(channels: Sequence[ChannelSurvey], card: ModelCard) -> Iterator[str]:
    """Yield a sentence for each channel whose values the network's single precision holds too coarsely."""
    for channel in card.input.channels:
        found = channels[channel.source]
        low, high = found.stored
        if found.rounding * _LEAST_LEVELS > high - low:
            yield (
                f"channel {channel.name} ranges from {low!r} to {high!r}; single precision, which the network takes, "
                f"rounds that by up to {found.rounding:g}: subtract an offset from the volume first"
            )


def _spacing(grid: Grid, card: ModelCard) -> Iterator[str]:
    wanted, unit = card.input.spacing, card.input.spacing_unit
    if wanted is None or unit is None:
        return
    if grid.unit == "unknown":
        yield f"the volume states no unit of length: its spacing is taken as {unit}, which the model card is in"
    # The card's spacing is along the axes of its orientation; without one, along the stored axes.
    order = (0, 1, 2) if card.input.orientation is None else grid.reorientation_to(card.input.orientation).axes
    factor = unit_factor(unit, grid.unit)
    for name, axis, target in zip("xyz", order, wanted, strict=True):
        if target is None:
            continue
        ratio = grid.spacing[axis] / (target * factor)
        if ratio >= _FAR_SPACING or ratio <= 1 / _FAR_SPACING:
            have = f"{grid.spacing[axis]:.4g} {grid.unit if grid.unit != 'unknown' else unit}"
            yield (
                f"spacing along {name} is {have}, {max(ratio, 1 / ratio):.1f} times off "
                f"the model's {target:g} {unit}: it is resampled, and detail may be missing"
            )


def _slices(plan: TilePlan) -> Iterator[str]:
    for name, length, padded in zip("xyz", plan.shape, plan.padded, strict=True):
        if 2 * length <= padded:
            yield f"{length} voxels along {name}, padded to the network's minimum of {padded}"


def _intensity(ranges: Sequence[tuple[float, float]], card: ModelCard) -> Iterator[str]:
    for channel in card.input.channels:
        low, high = ranges[channel.source]
        if low == high:
            yield f"channel {channel.name} has the value {low:g} everywhere: there is nothing to segment"
            continue
        for named in card.input.steps(channel):
            step = (named.given or named) if isinstance(named, ZScore) else named
            if isinstance(step, Window):
                kept = max(0.0, min(high, step.high) - max(low, step.low))
                if kept < _LEAST_KEPT * min(high - low, step.high - step.low):
                    yield (
                        f"channel {channel.name} ranges from {low:g} to {high:g}, "
                        f"the model expects {step.low:g} to {step.high:g}"
                    )
                break
            if isinstance(step, ShiftScale):
                ends = [(value + step.shift) * step.scale for value in (low, high)]
                if max(map(abs, ends)) > _LARGEST_SCALED:
                    yield (
                        f"channel {channel.name} ranges from {low:g} to {high:g}, "
                        f"{ends[0]:g} to {ends[1]:g} after the model's shift and scale: far from what it expects"
                    )
                break
            if isinstance(step, Rescale | ZScore):  # later steps see normalised values
                break
