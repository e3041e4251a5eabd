"""What the user states of a volume to read, where its file does not state it or should not be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UsageError

LengthUnit = Literal["nm", "um", "mm", "cm", "m"]
# Unit of a grid, and the factor to it.
LENGTH_UNITS: Mapping[str, tuple[str, float]] = {
    "nm": ("um", 1e-3),
    "um": ("um", 1.0),
    "mm": ("mm", 1.0),
    "cm": ("mm", 10.0),
    "m": ("mm", 1e3),
}
_SPELLINGS: Mapping[LengthUnit, str] = {
    "nm": "nanometer nanometre",
    "um": "\u00b5m \u03bcm micron micrometer micrometre",
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
}
# Bounds of voxel sizes; squares still fit double precision.
SHORTEST, LONGEST = 1e-12, 1e12
AXES = "TCZYX"
SPATIAL = "XYZ"


@dataclass(frozen=True)
class Reading:
    """What the user states of a volume to read. None: as the file states it.

    Args:
        spacing: voxel sizes along x, y and z.
        unit: of ``spacing``; without it, of the voxel sizes and the place that the file states.
        axes: a letter of X, Y, Z, C (channel) and T (time) for each axis of the stored array, in stored order.
        channel: names or indices of the channels to take, separated by commas; indices count from 0.
        timepoint: index of the point in time to take, from 0.
        level: of a pyramid; 0 is full resolution.
        series: which image of several: the UID of a DICOM series, the path of a dataset, the name of a scene.

    Raises:
        UsageError: a value that no volume can have.
    """

    spacing: tuple[float, float, float] | None = None
    unit: LengthUnit | None = None
    axes: str | None = None
    channel: str | None = None
    timepoint: int | None = None
    level: int | None = None
    series: str | None = None

    def __post_init__(self) -> None:
        if self.spacing is not None and not all(SHORTEST <= edge <= LONGEST for edge in self.spacing):
            expected = f"three numbers from {SHORTEST:g} to {LONGEST:g}"
            raise UsageError("spacing", expected=expected, got=numbers(self.spacing), do="correct it")
        if self.unit is not None and self.unit not in LENGTH_UNITS:
            raise UsageError("unit", expected=f"one of {', '.join(LENGTH_UNITS)}", got=self.unit[:40], do="correct it")
        if self.axes is not None:
            letters = self.axes.upper()
            if not {"X", "Y"} <= set(letters) <= set(AXES) or len(set(letters)) != len(letters):
                expected = "letters of X, Y, Z, C and T, each at most once, X and Y among them"
                raise UsageError("axes", expected=expected, got=self.axes[:40], do="give one letter an axis, e.g. ZYX")
            object.__setattr__(self, "axes", letters)
        for name, value in (("timepoint", self.timepoint), ("level", self.level)):
            if value is not None and value < 0:
                raise UsageError(name, expected="an index from 0", got=str(value), do="correct it")


def parse_spacing(text: str) -> tuple[float, float, float]:
    """Return the three voxel sizes of ``SX,SY,SZ``. Raises UsageError."""
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        expected = "three numbers such as 0.5,0.5,2"
        raise UsageError("spacing", expected=expected, got=text[:40], do="correct it") from None
    return x, y, z


def numbers(values: Sequence[float]) -> str:
    """Return lengths in words, e.g. ``0.5 x 0.5 x 2``."""
    return " x ".join(f"{value:.6g}" for value in values)


def length_unit(text: str) -> LengthUnit | None:
    """Return the unit that a file names, in any usual spelling; None for another word."""
    word = text.strip().lower()
    for unit, spellings in _SPELLINGS.items():
        if word in (unit, *spellings.split(), *(f"{spelling}s" for spelling in spellings.split())):
            return unit
    return None
