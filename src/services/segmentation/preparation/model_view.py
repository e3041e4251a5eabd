"""Stream a case as planes of the model's grid, and fit the intensity steps of its card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ....domain.cards.model_card import Channel, Input, ModelCard
from ....domain.errors import InputError, LimitError
from ....domain.geometry.grid import Box
from ....domain.geometry.model_space import ModelSpace
from ....domain.geometry.resampling import Limits
from ....domain.intensity import ChannelSurvey, Chunk, Mask, Pointwise, apply, fit, is_within_crop
from ..case import Case, finite, slabs
from .cropping import Foreground, Region

# Spacings that differ by this factor, on average over the axes, are taken for a mistake in the unit.
_WRONG_UNIT = 100.0
_UNIT_NAMES = {"mm": "mm", "um": "micron", "unknown": "unknown"}

Planes = Iterator[NDArray[np.float32]]
Fitted = tuple[tuple[Pointwise, ...], ...]


@dataclass(frozen=True)
class ModelView:
    """The stored voxels in ``box`` of a case, seen in the model's space.

    ``nan_as`` replaces what is not finite; ``region`` is the crop's, for a card with a step that needs it.
    """

    case: Case
    box: Box
    given: Input
    space: ModelSpace
    nan_as: float | None
    region: Region | None = None

    def stored_box(self, oriented: Box) -> Box:
        """Return the stored voxels of a box of the oriented grid."""
        return self.space.reorientation.source_box(oriented, self.box.shape).moved(self.box.start)

    def planes(self, fitted: Fitted, axis: int, within: Box | None = None, limits: Limits | None = None) -> Planes:
        """Yield the normalised network input as planes ``(C, A, B)`` along an axis of the model's grid.

        ``within`` is the box of that grid to yield, with the ``limits`` of all; None yields all.
        """
        if not self._resamples_first:
            yield from self._resampled(self.given.channels, fitted, axis, within, limits)
            return
        for plane in self._resampled(self.given.channels, None, axis, within, limits):
            yield np.stack([apply(steps, values) for steps, values in zip(fitted, plane, strict=True)])

    def limits(self, fitted: Fitted, axis: int) -> Limits | None:
        """Return the limits that resampled values are clipped to, from all of the volume; None if they are not."""
        return self._limits(self.given.channels, None if self._resamples_first else fitted, axis)

    def fit(self, channels: Sequence[ChannelSurvey], axis: int) -> Fitted:
        """Fit the steps of the network's channels to those of the case; ``axis`` is read along where that counts."""
        return tuple(self._fit(channel, channels[channel.source], axis) for channel in self.given.channels)

    @property
    def _resamples_first(self) -> bool:
        return self.space.resamples and self.given.resampling.when == "before_intensity"

    def _fit(self, channel: Channel, found: ChannelSurvey, axis: int) -> tuple[Pointwise, ...]:
        steps, region = self.given.steps(channel), self.region
        if self._resamples_first:
            return fit(steps, partial(self._resampled_chunks, channel, axis))
        if region is None or not any(map(is_within_crop, steps)):
            return fit(steps, found.chunks)
        boxes = list(slabs(self.case.grid, region.axis, within=self.box))

        def chunks() -> Iterator[Chunk]:
            return ((finite(self.case.read_channel(channel.source, box), self.nan_as), None) for box in boxes)

        return fit(steps, chunks, lambda: map(region.read, boxes))

    def _resampled_chunks(self, channel: Channel, axis: int) -> Iterator[Chunk]:
        return ((plane, None) for plane in self._resampled([channel], None, axis))

    def _resampled(
        self,
        channels: Sequence[Channel],
        fitted: Fitted | None,
        axis: int,
        within: Box | None = None,
        limits: Limits | None = None,
    ) -> Planes:
        resampling = self.space.resampling
        limits = limits or self._limits(channels, fitted, axis)
        source = Box.whole(self.space.oriented.shape) if within is None else resampling.source_box(within)
        return resampling.planes(self._oriented(channels, fitted, axis, source), axis, limits=limits, within=within)

    def _limits(self, channels: Sequence[Channel], fitted: Fitted | None, axis: int) -> Limits | None:
        if not self.space.resampling.clips:
            return None
        whole = Box.whole(self.space.oriented.shape)
        return self.space.resampling.limits(self._oriented(channels, fitted, axis, whole), axis)

    def _oriented(self, channels: Sequence[Channel], fitted: Fitted | None, axis: int, within: Box) -> Planes:
        """Yield planes of a box of the oriented grid, through the fitted steps if there are some."""
        change, fitted = self.space.reorientation, fitted or ((),) * len(channels)
        whole = change.apply_grid(self.case.grid)
        for oriented in slabs(whole, axis, within=within):
            box = self.stored_box(oriented)
            inside: Mask | None = None if self.region is None else change.apply(self.region.read(box))
            normal = [
                apply(steps, finite(change.apply(values), self.nan_as), inside)
                for values, steps in zip(self._read(channels, box), fitted, strict=True)
            ]
            yield from iter(np.moveaxis(np.stack(normal), 1 + axis, 0))

    def _read(self, channels: Sequence[Channel], box: Box) -> list[NDArray[np.generic]]:
        if len(channels) == 1:
            return [self.case.read_channel(channels[0].source, box)]
        stored = self.case.read(box)
        return [stored[channel.source] for channel in channels]


def open_view(case: Case, card: ModelCard, nan_as: float | None) -> tuple[ModelView, tuple[str, ...]]:
    """Crop a case as the card says.

    A case without any foreground is not cropped: a warning says so, as nothing else is known about it.

    Raises:
        InputError: a spacing or unit that cannot be right.
        LimitError: too many voxels at the model's spacing.
    """
    whole, given = Box.whole(case.grid.shape), card.input
    foreground = Foreground.of(case, card, nan_as)
    if foreground is None:
        return ModelView(case, whole, given, _space(case, card, whole), nan_as), ()
    found = foreground.box()
    box = found or whole
    space = _space(case, card, box)
    steps = (step for channel in given.channels for step in given.steps(channel))
    region = foreground.region(box) if any(map(is_within_crop, steps)) else None
    return ModelView(case, box, given, space, nan_as, region), () if found else (foreground.nothing,)


def reopened_view(case: Case, card: ModelCard, box: Box, nan_as: float | None) -> ModelView:
    """Return the view of a case that was cropped to ``box`` before, of a card without steps that need the region."""
    return ModelView(case, box, card.input, _space(case, card, box), nan_as)


def _space(case: Case, card: ModelCard, box: Box) -> ModelSpace:
    """Return the model's space. Raises InputError for a spacing or unit that cannot be right, or LimitError."""
    stored = case.grid.part(box)
    space, wanted = ModelSpace.of(stored, card.input), card.input
    if wanted.spacing is None or not space.resamples:
        return space
    subject, grid = " + ".join(case.references), space.grid
    longer = (stored.voxel_volume / grid.voxel_volume) ** (1 / 3)
    unit = "a spacing" if stored.unit == "unknown" else f"a spacing in {stored.unit}"
    if not 1 / _WRONG_UNIT < longer < _WRONG_UNIT:
        names = " x ".join(f"{length:.4g}" for length in stored.spacing)
        near = " x ".join("any" if length is None else f"{length:g}" for length in wanted.spacing)
        raise InputError(
            subject,
            expected=f"{unit} near the model's {near} {wanted.spacing_unit}",
            got=f"{names}, {longer if longer > 1 else 1 / longer:.3g} times {'as long' if longer > 1 else 'as short'}: "
            "is the unit right?",
            do="correct the spacing, or its unit, in the file, e.g. with nibabel: i = nibabel.load(FILE); "
            f"i.header.set_xyzt_units('{_UNIT_NAMES[wanted.spacing_unit or 'unknown']}'); nibabel.save(i, NEW_FILE)",
        )
    if grid.voxel_count == 1 < stored.voxel_count == case.grid.voxel_count:
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
