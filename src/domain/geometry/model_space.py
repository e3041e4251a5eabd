"""The transformation from a stored grid to the model's grid: reorient, then resample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..cards.model_card import Input
from ..labels.label_map import Output
from .grid import Grid, Reorientation, shape3, unit_factor
from .interpolation import Align
from .resampling import Resampling

# Spacings this close count as equal: float32 headers differ from what they mean by 1e-7.
_SAME_SPACING = 1e-5
# MONAI keeps the spacing of an axis that differs by at most this, in the card's unit.
_SAME_TO_MONAI = 1e-3
# nnU-Net takes an axis apart whose spacing is more than this times the smallest.
_ANISOTROPIC = 3.0


@dataclass(frozen=True)
class ModelSpace:
    """The reoriented grid and the model's grid of a stored grid, with the transformations between them.

    ``back`` is the linear `way_back`.
    """

    stored: Grid
    reorientation: Reorientation
    oriented: Grid
    resampling: Resampling
    grid: Grid
    back: Resampling

    @classmethod
    def of(cls, stored: Grid, wanted: Input) -> ModelSpace:
        """Build the space for a card's input."""
        identity = Reorientation.identity()
        change = identity if wanted.orientation is None else stored.reorientation_to(wanted.orientation)
        oriented, rule = change.apply_grid(stored), wanted.resampling
        old = new = oriented.spacing
        factor = 1.0
        if wanted.spacing is not None and wanted.spacing_unit is not None:
            factor = unit_factor(wanted.spacing_unit, stored.unit)
            given = zip(wanted.spacing, old, strict=True)
            x, y, z = (kept if length is None else length * factor for length, kept in given)
            new = x, y, z
        axes = [
            _Axis.of(*axis, align=rule.align, tolerance=_SAME_TO_MONAI * factor)
            for axis in zip(oriented.shape, old, new, strict=True)
        ]
        if rule.align == "centre" and all(abs(axis.ratio - 1) <= _SAME_SPACING for axis in axes):
            axes = [_Axis(length, 1.0, 0.0) for length in oriented.shape]
        grid, (x, y, z) = oriented, (axis.ratio for axis in axes)
        if (x, y, z) != (1.0, 1.0, 1.0):
            grid = oriented.resampled(shape3(axis.length for axis in axes), (x, y, z), [axis.first for axis in axes])
        resampling = Resampling(oriented.shape, grid.shape, (x, y, z), rule.order, align=rule.align)
        back = replace(resampling.inverse(), order=1)
        if rule.separate_axis == "auto":
            resampling = replace(resampling, separate=coarse_axis(old, new))
            back = replace(back, separate=coarse_axis(new, old))
        return cls(stored, change, oriented, resampling, grid, back)

    @property
    def resamples(self) -> bool:
        """Whether anything is interpolated."""
        return self.resampling.ratio != (1.0, 1.0, 1.0)

    def way_back(self, output: Output) -> Resampling:
        """Return the resampling of the network's results to the reoriented grid.

        Labels are resampled by taking the nearest voxel's logits, which have the nearest voxel's label.
        """
        return replace(self.back, order=0 if output.resample == "labels" else output.order)

    def resampling_bytes(self, axis: int, channels: int, output: Output, classes: int) -> int:
        """Return the peak memory of resampling channels there and classes back, streamed along a model axis."""
        if not self.resamples:
            return 0
        back = self.way_back(output)
        return self.resampling.held_bytes(axis, channels) + back.held_bytes(axis, classes)

    def model_axis(self, stored_axis: int) -> int:
        """Return the model axis parallel to a stored axis."""
        return self.reorientation.axes.index(stored_axis)


@dataclass(frozen=True)
class _Axis:
    """A resampled axis: number of voxels, spacing over the old one, and the first voxel's place in old voxels."""

    length: int
    ratio: float
    first: float

    @classmethod
    def of(cls, length: int, old: float, new: float, *, align: Align, tolerance: float) -> _Axis:
        """Return the axis for an old length and spacing, and a new spacing."""
        if align == "first":
            ratio = 1.0 if abs(old - new) <= tolerance else new / old
            return cls(round((length - 1) / ratio + 1), ratio, 0.0)
        count = max(1, round(length / (new / old) if align == "centre" else old / new * length))
        ratio = new / old if align == "centre" else length / count
        return cls(count, ratio, (length / 2 - 0.5) - ratio * (count / 2 - 0.5))


def coarse_axis(*spacings: Sequence[float]) -> int | None:
    """Return the one coarse axis of the first anisotropic spacing; None if there is none, or if two are coarse."""
    for spacing in spacings:
        largest = max(spacing)
        if largest > _ANISOTROPIC * min(spacing):
            coarse = [axis for axis in range(3) if spacing[axis] >= largest * (1 - _SAME_SPACING)]
            return coarse[0] if len(coarse) == 1 else None
    return None
