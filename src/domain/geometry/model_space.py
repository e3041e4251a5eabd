"""The transformation from a stored grid to the model's grid: reorient, then resample."""

from __future__ import annotations

from dataclasses import dataclass

from ..cards.model_card import Input
from .grid import Grid, Reorientation, unit_factor
from .resampling import Resampling

# Spacings this close count as equal: float32 headers differ from what they mean by 1e-7.
_SAME_SPACING = 1e-5


@dataclass(frozen=True)
class ModelSpace:
    """The reoriented grid and the model's grid of a stored grid, with the transformations between them."""

    stored: Grid
    reorientation: Reorientation
    oriented: Grid
    resampling: Resampling
    grid: Grid

    @classmethod
    def of(cls, stored: Grid, wanted: Input) -> ModelSpace:
        """Build the space for a card's input."""
        identity = Reorientation.identity()
        change = identity if wanted.orientation is None else stored.reorientation_to(wanted.orientation)
        grid = oriented = change.apply_grid(stored)
        ratio = (1.0, 1.0, 1.0)
        if wanted.spacing is not None and wanted.spacing_unit is not None:
            factor = unit_factor(wanted.spacing_unit, stored.unit)
            wanted_lengths = zip(wanted.spacing, oriented.spacing, strict=True)
            target = [have if length is None else length * factor for length, have in wanted_lengths]
            x, y, z = (t / s for t, s in zip(target, oriented.spacing, strict=True))
            if not all(abs(r - 1) <= _SAME_SPACING for r in (x, y, z)):
                grid, ratio = oriented.resampled(target), (x, y, z)
        return cls(stored, change, oriented, Resampling(oriented.shape, grid.shape, ratio), grid)

    @property
    def resamples(self) -> bool:
        """Whether anything is interpolated."""
        return self.resampling.ratio != (1.0, 1.0, 1.0)

    def model_axis(self, stored_axis: int) -> int:
        """Return the model axis parallel to a stored axis."""
        return self.reorientation.axes.index(stored_axis)
