"""Voxel sizes, place and channels as one part of a TIFF file states them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ....domain.geometry.grid import unit_factor

# Rational numbers of tags and rounded texts agree within a hundredth.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Stated:
    """What a file states; see StoredArray for the fields."""

    spacing: Mapping[str, float] = field(default_factory=dict)
    unit: str = "unknown"
    sources: Mapping[str, str] = field(default_factory=dict)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    channel_names: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def against(self, other: Stated) -> Stated:
        """Return this statement with the voxel sizes that another part of the file states differently as conflicts."""
        if "unknown" in (self.unit, other.unit):
            return self
        factor = unit_factor(other.unit, self.unit)
        differing = [
            f"{self.sources[letter]} of {self.spacing[letter]:.6g} {self.unit} along {letter.lower()}, "
            f"{other.sources[letter]} of {other.spacing[letter]:.6g} {other.unit}"
            for letter in "XYZ"
            if letter in self.spacing and letter in other.spacing
            and not math.isclose(self.spacing[letter], other.spacing[letter] * factor, rel_tol=_TOLERANCE)
        ]  # fmt: skip
        return replace(self, conflicts=(*self.conflicts, *differing))
